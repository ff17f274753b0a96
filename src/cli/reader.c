/*
 * Reading a dump. Which format it is in, its first line tells: an object, or
 * VERSION=3.
 *
 *     JSON lines   {"key":"k","value":"v"}; key_encoding and value_encoding may
 *                  be "base64". {"index":"ordered"} is a line that tells of the
 *                  bank
 *     db_dump      a header of words, HEADER=END; lines of key and value in
 *                  turn, each behind a blank; DATA=END. In format=bytevalue
 *                  they are in hexadecimal, in format=print \hh is a byte
 *
 * The two programs that write the second differ: see known_word().
 */
#include "reader.h"

#include "escape.h"
#include "fail.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int reader_bad(const struct reader *r, const char *format, ...)
{
    char text[512];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (r->whole) {
        complain("%s, line %llu: the dump was changed while it was being loaded", r->shown,
                 (unsigned long long)r->line_number);
        return STATUS_SYSTEM;
    }
    return fail_usage("%s, line %llu: %s", r->shown, (unsigned long long)r->line_number, text);
}

/* ---- opening ---------------------------------------------------------- */

static int write_all(int fd, const char *p, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* All that `fd` yields, in a file without a name; *out is its descriptor. */
static int gather(const struct reader *r, int fd, int *out)
{
    static char piece[1 << 18];
    const char *dir = getenv("TMPDIR");
    char path[4096];
    int err = 0;

    if (dir == NULL || dir[0] == '\0')
        dir = "/var/tmp";
    (void)snprintf(path, sizeof path, "%s/kist-load.XXXXXX", dir);
    *out = mkostemp(path, O_CLOEXEC);
    if (*out < 0)
        return fail_errno(errno, "cannot make a temporary file in", dir);
    (void)unlink(path);
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);

        if (n == 0)
            return STATUS_DONE;
        if (n < 0 && errno == EINTR)
            continue;
        err = n < 0 ? errno : write_all(*out, piece, (size_t)n);
        if (err == 0)
            continue;
        (void)close(*out);
        return n < 0 ? fail_errno(err, "cannot read", r->name)
                     : fail_errno(err, "cannot gather the input in a temporary file, for which "
                                       "TMPDIR names another folder than",
                                  dir);
    }
}

int reader_open(struct reader *r, const char *path, bool twice)
{
    bool is_stdin = path == NULL || strcmp(path, "-") == 0;
    int fd = is_stdin ? fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)
                      : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int status = STATUS_DONE, spool;
    struct stat st;

    *r = (struct reader){ .name = is_stdin ? "standard input" : path };
    (void)escape_text(r->shown, sizeof r->shown, r->name, strlen(r->name));
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail_errno(errno, "cannot read", r->name);
    if (S_ISDIR(st.st_mode) && twice) {
        (void)close(fd);
        return fail_usage("%s is a directory; --files=%s loads the files in it", quoted(path),
                          r->shown);
    }
    r->start = lseek(fd, 0, SEEK_CUR);
    if (r->start < 0 && twice) {
        r->start = 0;
        status = gather(r, fd, &spool);
        (void)close(fd);
        if (status != STATUS_DONE)
            return status;
        fd = spool;
        (void)fstat(fd, &st);
    }
    r->start = r->start < 0 ? 0 : r->start;
    r->size = st.st_size > r->start ? st.st_size - r->start : 0;
    r->in = fdopen(fd, "r");
    if (r->in != NULL)
        return STATUS_DONE;
    (void)close(fd);
    return fail_errno(errno, "cannot read", r->name);
}

uint64_t reader_at(const struct reader *r)
{
    off_t at = ftello(r->in);

    return at > r->start ? (uint64_t)(at - r->start) : 0;
}

void reader_close(struct reader *r)
{
    (void)fclose(r->in);
    free(r->line);
    free(r->key_line);
}

/* ---- lines ------------------------------------------------------------ */

/* The next line, without its end; *len is -1 behind the last. */
static int next_line(struct reader *r, char **line, size_t *room, ssize_t *len)
{
    errno = 0;
    *len = getline(line, room, r->in);
    if (*len < 0 && (ferror(r->in) || errno == ENOMEM))
        return fail_errno(errno, "cannot read", r->name);
    r->line_number++;
    if (*len > 0 && (*line)[*len - 1] == '\n')
        (*line)[--*len] = '\0';
    return STATUS_DONE;
}

static bool is_blank(const struct reader *r, ssize_t len)
{
    return r->line[strspn(r->line, " \t\r")] == '\0' && strlen(r->line) == (size_t)len;
}

int reader_line(struct reader *r, ssize_t *len)
{
    int status;

    do
        status = next_line(r, &r->line, &r->room, len);
    while (status == STATUS_DONE && *len >= 0 && is_blank(r, *len));
    return status;
}

/* ---- JSON lines ------------------------------------------------------- */

struct object {
    kist_bytes key, value;
    bool has_key, has_value, key_base64, value_base64, expires;
    uint32_t index; /* enum kist_index_kind, or 0 */
};

static const char *take_encoding(const struct json_field *field, bool *base64)
{
    if (!field->is_string || field->text.len != 6 || memcmp(field->text.data, "base64", 6) != 0)
        return "the one encoding there is, is \"base64\"";
    *base64 = true;
    return NULL;
}

static const char *take_bytes(const struct json_field *field, kist_bytes *bytes, bool *has)
{
    if (!field->is_string)
        return "\"key\" and \"value\" have to be strings";
    if (*has)
        return "\"key\" or \"value\" comes twice";
    *bytes = field->text;
    *has = true;
    return NULL;
}

static const char *take_index(const struct json_field *field, uint32_t *index)
{
    if (field->is_string && field->text.len == 7 && memcmp(field->text.data, "ordered", 7) == 0)
        *index = KIST_INDEX_ORDERED;
    else if (field->is_string && field->text.len == 4 && memcmp(field->text.data, "hash", 4) == 0)
        *index = KIST_INDEX_HASH;
    else
        return "the kinds of \"index\" there are, are \"hash\" and \"ordered\"";
    return NULL;
}

/* A number other than 0. */
static bool is_set(const struct json_field *field)
{
    const char *text = field->text.data;

    return !field->is_string && (*text == '-' || (*text >= '1' && *text <= '9'));
}

/* The fields that kist itself prints; those that cannot be set are left. */
static const char *take_json_field(const struct json_field *field, void *arg)
{
    static const char *const known[] = { "bytes", "sequence", "mtime_ns" };
    static char message[256];
    struct object *o = arg;

    if (strcmp(field->name, "key") == 0)
        return take_bytes(field, &o->key, &o->has_key);
    if (strcmp(field->name, "value") == 0)
        return take_bytes(field, &o->value, &o->has_value);
    if (strcmp(field->name, "key_encoding") == 0)
        return take_encoding(field, &o->key_base64);
    if (strcmp(field->name, "value_encoding") == 0)
        return take_encoding(field, &o->value_base64);
    if (strcmp(field->name, "index") == 0)
        return take_index(field, &o->index);
    if (strcmp(field->name, "expiry_ns") == 0) {
        o->expires = is_set(field);
        return NULL;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(field->name, known[i]) == 0)
            return NULL;
    (void)snprintf(message, sizeof message, "no field is called %.100s; there are key, value, "
                                            "key_encoding, value_encoding",
                   quoted(field->name));
    return message;
}

static int take_object(struct reader *r, ssize_t len, struct object *o)
{
    const char *wrong;

    *o = (struct object){ .has_key = false };
    wrong = json_object(r->line, (size_t)len, take_json_field, o);
    if (wrong == NULL && o->index != KIST_INDEX_DEFAULT && (o->has_key || o->has_value))
        wrong = "\"index\" tells of the bank, and stands on a line of its own";
    if (wrong == NULL && !o->has_key && o->index == KIST_INDEX_DEFAULT)
        wrong = "there is no \"key\"";
    if (wrong == NULL && !o->has_value && o->index == KIST_INDEX_DEFAULT)
        wrong = "there is no \"value\"";
    if (wrong == NULL && o->key_base64 && !json_decode(&o->key))
        wrong = "the key is not base64";
    if (wrong == NULL && o->value_base64 && !json_decode(&o->value))
        wrong = "the value is not base64";
    r->expiring += o->expires;
    if (wrong == NULL && o->index > r->index)
        r->index = o->index;
    return wrong == NULL ? STATUS_DONE : reader_bad(r, "%s", wrong);
}

static int read_json(struct reader *r, ssize_t len,
                     int (*each)(kist_bytes key, kist_bytes value, void *arg), void *arg)
{
    int status = STATUS_DONE;
    struct object o;

    while (len >= 0 && status == STATUS_DONE) {
        status = take_object(r, len, &o);
        if (status == STATUS_DONE && o.has_key)
            status = each(o.key, o.value, arg);
        if (status == STATUS_DONE)
            status = reader_line(r, &len);
    }
    return status;
}

/* ---- mdb_dump and db_dump: the header --------------------------------- */

struct header {
    bool print; /* format=print */
    bool lmdb;  /* written by mdb_dump, whose print form is ambiguous */
};

/*
 * The words that either of the two writes, and that say nothing about keys and
 * values. mapsize and maxreaders are mdb_dump's alone.
 */
static bool known_word(const char *word)
{
    static const char *const words[] = {
        "database", "subdatabase", "db_pagesize", "db_lorder", "bt_minkey", "chksum", "h_ffactor",
        "h_nelem", "keys", "recnum", "reversekey", "integerkey", "mapsize", "maxreaders", "mapaddr",
    };

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

static bool is_off(const char *value)
{
    return strcmp(value, "0") == 0;
}

static int take_word(struct reader *r, struct header *h, const char *word, const char *value)
{
    if (strcmp(word, "VERSION") == 0)
        return strcmp(value, "3") == 0
                   ? STATUS_DONE
                   : reader_bad(r, "a dump of version %s; 3 is the one that can be read", quoted(value));
    if (strcmp(word, "format") == 0) {
        h->print = strcmp(value, "print") == 0;
        return h->print || strcmp(value, "bytevalue") == 0
                   ? STATUS_DONE
                   : reader_bad(r, "the format is %s; bytevalue and print can be read", quoted(value));
    }
    if (strcmp(word, "type") == 0)
        r->index = strcmp(value, "btree") == 0 ? KIST_INDEX_ORDERED : KIST_INDEX_HASH;
    if (strcmp(word, "type") == 0)
        return strcmp(value, "btree") == 0 || strcmp(value, "hash") == 0
                   ? STATUS_DONE
                   : reader_bad(r, "a database of type %s; btree and hash can be loaded, records by "
                            "number have no keys", quoted(value));
    if (strcmp(word, "duplicates") == 0 || strncmp(word, "dup", 3) == 0 ||
        strcmp(word, "integerdup") == 0 || strcmp(word, "reversedup") == 0)
        return is_off(value)
                   ? STATUS_DONE
                   : reader_bad(r, "the database has several values for a key (%s is %s); kist has "
                            "one, so nothing was loaded", quoted(word), quoted(value));
    if (strcmp(word, "mapsize") == 0 || strcmp(word, "maxreaders") == 0)
        h->lmdb = true;
    return known_word(word) ? STATUS_DONE
                            : reader_bad(r, "the header has a word that is not known, %s", quoted(word));
}

/* r->line is the first line. */
static int read_header(struct reader *r, struct header *h, ssize_t len)
{
    int status = STATUS_DONE;
    char *equals;

    *h = (struct header){ .print = false };
    while (len >= 0 && strcmp(r->line, "HEADER=END") != 0) {
        equals = strchr(r->line, '=');
        if (equals == NULL || strlen(r->line) != (size_t)len)
            return reader_bad(r, "the header goes on up to HEADER=END, in lines WORD=VALUE; this is %s",
                       quoted_bytes(r->line, (size_t)len));
        *equals = '\0';
        status = take_word(r, h, r->line, equals + 1);
        if (status == STATUS_DONE)
            status = next_line(r, &r->line, &r->room, &len);
        if (status != STATUS_DONE)
            return status;
    }
    return len >= 0 ? STATUS_DONE : reader_bad(r, "the dump ends in its header; it was cut short");
}

/* ---- mdb_dump and db_dump: keys and values ---------------------------- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int take_hex(const struct reader *r, const char *from, size_t len, char *out, size_t *used)
{
    if (len % 2 != 0)
        return reader_bad(r, "a byte is cut in half: %zu hexadecimal digits", len);
    for (*used = 0; *used < len / 2; ++*used) {
        int high = hex_digit(from[2 * *used]), low = hex_digit(from[2 * *used + 1]);

        if (high < 0 || low < 0)
            return reader_bad(r, "no hexadecimal digits: %s", quoted_bytes(from + 2 * *used, 2));
        out[*used] = (char)(high << 4 | low);
    }
    return STATUS_DONE;
}

static int take_print(const struct reader *r, const struct header *h, const char *from, size_t len,
                      char *out, size_t *used)
{
    *used = 0;
    for (size_t i = 0; i < len; i++) {
        if (from[i] != '\\') {
            out[(*used)++] = from[i];
            continue;
        }
        if (h->lmdb)
            return reader_bad(r, "mdb_dump -p does not tell a backslash from an escape, so this cannot be "
                          "read for certain; dump it again without -p");
        if (i + 1 < len && from[i + 1] == '\\') {
            out[(*used)++] = '\\';
            i++;
        } else if (i + 2 < len && hex_digit(from[i + 1]) >= 0 && hex_digit(from[i + 2]) >= 0) {
            out[(*used)++] = (char)(hex_digit(from[i + 1]) << 4 | hex_digit(from[i + 2]));
            i += 2;
        } else {
            return reader_bad(r, "behind a backslash there have to be two hexadecimal digits or another "
                          "one");
        }
    }
    return STATUS_DONE;
}

/* Decode a line of data where it stands. */
static int take_data(const struct reader *r, const struct header *h, char *line, ssize_t len,
                     kist_bytes *out)
{
    int status;

    if (len < 1 || line[0] != ' ')
        return reader_bad(r, "a line of data begins with a blank; this is %s",
                   quoted_bytes(line, (size_t)len));
    status = h->print ? take_print(r, h, line + 1, (size_t)len - 1, line, &out->len)
                      : take_hex(r, line + 1, (size_t)len - 1, line, &out->len);
    out->data = line;
    return status;
}

static int fail_short(const struct reader *r)
{
    return reader_bad(r, "the dump ends without DATA=END; it was cut short, so nothing was loaded");
}

/* Behind DATA=END there may be nothing more. */
static int read_rest(struct reader *r)
{
    ssize_t len;
    int status;

    for (;;) {
        status = next_line(r, &r->line, &r->room, &len);
        if (status != STATUS_DONE || len < 0)
            return status;
        if (len > 0)
            return reader_bad(r, "another database begins here, and a bank holds one; dump them one by "
                          "one, with -s NAME");
    }
}

static int read_data(struct reader *r, const struct header *h,
                     int (*each)(kist_bytes key, kist_bytes value, void *arg), void *arg)
{
    kist_bytes key, value;
    ssize_t len;
    int status;

    for (;;) {
        status = next_line(r, &r->key_line, &r->key_room, &len);
        if (status != STATUS_DONE)
            return status;
        if (len < 0)
            return fail_short(r);
        if (strcmp(r->key_line, "DATA=END") == 0)
            return read_rest(r);
        status = take_data(r, h, r->key_line, len, &key);
        if (status == STATUS_DONE)
            status = next_line(r, &r->line, &r->room, &len);
        if (status == STATUS_DONE && len < 0)
            status = fail_short(r);
        if (status == STATUS_DONE && strcmp(r->line, "DATA=END") == 0)
            status = reader_bad(r, "the last key has no value; the dump is damaged");
        if (status == STATUS_DONE)
            status = take_data(r, h, r->line, len, &value);
        if (status == STATUS_DONE)
            status = each(key, value, arg);
        if (status != STATUS_DONE)
            return status;
    }
}

/* ---- both ------------------------------------------------------------- */

int reader_each(struct reader *r, int (*each)(kist_bytes key, kist_bytes value, void *arg),
                void *arg)
{
    struct header header;
    ssize_t len;
    int status;

    r->line_number = r->expiring = 0;
    r->index = KIST_INDEX_DEFAULT;
    clearerr(r->in);
    if (fseeko(r->in, r->start, SEEK_SET) < 0)
        return fail_errno(errno, "cannot read", r->name);
    status = next_line(r, &r->line, &r->room, &len);
    if (status != STATUS_DONE || len < 0)
        return status; /* no entries: a dump of none, in JSON lines */
    if (strncmp(r->line, "VERSION=", 8) == 0) {
        status = read_header(r, &header, len);
        if (status == STATUS_DONE)
            status = read_data(r, &header, each, arg);
    } else if (r->line[strspn(r->line, " \t\r")] == '{') {
        status = read_json(r, len, each, arg);
    } else {
        return reader_bad(r, "this is no dump; one begins with { or with VERSION=3");
    }
    r->whole |= status == STATUS_DONE;
    return status;
}

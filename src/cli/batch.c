/*
 * The verb batch: operations from lines of JSON, that come all at once or not at
 * all.
 *
 * The lines are read once, into a batch of the library, which is private until it
 * is committed: whatever is wrong with one of them, nothing was changed. Why a
 * commit was refused the library does not tell, so what was expected is kept, and
 * held against the bank again.
 */
#include "fail.h"
#include "json.h"
#include "out.h"
#include "progress.h"
#include "reader.h"
#include "session.h"
#include "verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* An expectation, to be looked at again. */
struct expected {
    struct expected *next;
    uint64_t line, sequence;
    size_t len;
    char key[];
};

struct job {
    struct session s;
    struct reader reader;
    kist_batch *batch;
    struct expected *expected;
    struct progress bar;
};

/* ---- a line ------------------------------------------------------------- */

enum kind { PUT, DELETE, EXPECT, KINDS };

static const char *const kind_names[KINDS] = { "put", "delete", "expect" };

struct operation {
    enum kind kind; /* KINDS: none yet */
    kist_bytes key, value;
    bool has_value, has_sequence, key_base64, value_base64;
    uint64_t sequence;
};

static const char *take_text(const struct json_field *field, kist_bytes *text)
{
    *text = field->text;
    return field->is_string ? NULL : "keys and values have to be strings";
}

static const char *take_encoding(const struct json_field *field, bool *base64)
{
    *base64 = field->is_string && field->text.len == 6 &&
              memcmp(field->text.data, "base64", 6) == 0;
    return *base64 ? NULL : "the one encoding there is, is \"base64\"";
}

static const char *take_sequence(const struct json_field *field, struct operation *o)
{
    const char *text = field->text.data;

    if (field->is_string || o->has_sequence)
        return "\"sequence\" has to be one whole number";
    o->has_sequence = true;
    for (size_t i = 0; i < field->text.len; i++) {
        uint64_t digit = (uint64_t)(text[i] - '0');

        if (text[i] < '0' || text[i] > '9' || o->sequence > (UINT64_MAX - digit) / 10)
            return "\"sequence\" has to be a whole number, from 0 to 18446744073709551615";
        o->sequence = 10 * o->sequence + digit;
    }
    return NULL;
}

static const char *take_value(const struct json_field *field, struct operation *o)
{
    if (o->has_value)
        return "\"value\" comes twice";
    o->has_value = true;
    return take_text(field, &o->value);
}

static const char *take_field(const struct json_field *field, void *arg)
{
    static char message[320];
    struct operation *o = arg;

    for (int kind = 0; kind < KINDS; kind++)
        if (strcmp(field->name, kind_names[kind]) == 0) {
            if (o->kind != KINDS)
                return "there is more than one operation; each has a line of its own";
            o->kind = (enum kind)kind;
            return take_text(field, &o->key);
        }
    if (strcmp(field->name, "value") == 0)
        return take_value(field, o);
    if (strcmp(field->name, "sequence") == 0)
        return take_sequence(field, o);
    if (strcmp(field->name, "key_encoding") == 0)
        return take_encoding(field, &o->key_base64);
    if (strcmp(field->name, "value_encoding") == 0)
        return take_encoding(field, &o->value_base64);
    (void)snprintf(message, sizeof message,
                   "no operation is called %.100s; there are put, delete, expect, and beside them "
                   "value, sequence, key_encoding, value_encoding",
                   quoted(field->name));
    return message;
}

static const char *check_parts(const struct operation *o)
{
    if (o->kind == KINDS)
        return "there is no operation: put, delete or expect";
    if (o->has_value != (o->kind == PUT))
        return o->has_value ? "a \"value\" goes with put alone" : "a put without a \"value\"";
    if (o->has_sequence != (o->kind == EXPECT))
        return o->has_sequence ? "a \"sequence\" goes with expect alone"
                               : "an expect without a \"sequence\"";
    if (o->value_base64 && !o->has_value)
        return "\"value_encoding\" goes with a \"value\"";
    return NULL;
}

/* The operation of the reader's line; what it leads to lies in the line. */
static int take_operation(struct reader *r, ssize_t len, struct operation *o)
{
    const char *wrong;

    *o = (struct operation){ .kind = KINDS };
    wrong = json_object(r->line, (size_t)len, take_field, o);
    if (wrong == NULL)
        wrong = check_parts(o);
    if (wrong == NULL && o->key_base64 && !json_decode(&o->key))
        wrong = "the key is not base64";
    if (wrong == NULL && o->value_base64 && !json_decode(&o->value))
        wrong = "the value is not base64";
    if (wrong != NULL)
        return reader_bad(r, "%s; nothing was changed", wrong);
    if (o->key.len > KIST_KEY_MAX)
        return reader_bad(r, "a key of %zu bytes; %u is the most, and nothing was changed",
                          o->key.len, KIST_KEY_MAX);
    if (o->value.len > KIST_VALUE_MAX)
        return reader_bad(r, "a value of %zu bytes; %u is the most, and nothing was changed",
                          o->value.len, KIST_VALUE_MAX);
    return STATUS_DONE;
}

/* ---- what was expected --------------------------------------------------- */

static int keep_expected(struct job *job, const struct operation *o)
{
    struct expected *e = malloc(sizeof *e + o->key.len);

    if (e == NULL)
        return -ENOMEM;
    *e = (struct expected){ job->expected, job->reader.line_number, o->sequence, o->key.len };
    memcpy(e->key, o->key.data, o->key.len);
    job->expected = e;
    return KIST_OK;
}

static void forget_expected(struct job *job)
{
    while (job->expected != NULL) {
        struct expected *e = job->expected;

        job->expected = e->next;
        free(e);
    }
}

/* Tell of an expectation that does not hold; false: it holds now. */
static bool tell_failed(const struct job *job, const struct expected *e)
{
    kist_bytes key = { e->key, e->len };
    const char *shown = quoted_bytes(e->key, e->len);
    kist_meta meta;
    int rc = kist_get_meta(job->s.bank, key, &meta);

    if (rc == KIST_OK && meta.sequence != e->sequence && e->sequence == 0)
        complain("%s, line %" PRIu64 ": key %s has a value, of sequence %" PRIu64
                 "; nothing was changed",
                 job->reader.shown, e->line, shown, meta.sequence);
    else if (rc == KIST_OK && meta.sequence != e->sequence)
        complain("%s, line %" PRIu64 ": key %s has the sequence %" PRIu64 " now, and not %" PRIu64
                 "; nothing was changed",
                 job->reader.shown, e->line, shown, meta.sequence, e->sequence);
    else if (rc == KIST_MISS && e->sequence != 0)
        complain("%s, line %" PRIu64 ": key %s has no value; nothing was changed",
                 job->reader.shown, e->line, shown);
    else
        return false;
    return true;
}

/* The lines that failed, the last one first, as they were kept; one of them says
 * enough. */
static int fail_expected(const struct job *job)
{
    for (const struct expected *e = job->expected; e != NULL && !job->s.quiet; e = e->next)
        if (tell_failed(job, e))
            return STATUS_NO_KEY;
    if (!job->s.quiet)
        complain("bank %s: another writer came between what was expected; nothing was changed",
                 quoted(job->s.bank_name));
    return STATUS_NO_KEY;
}

/* ---- the batch ----------------------------------------------------------- */

static int add(struct job *job, const struct operation *o)
{
    int rc;

    if (o->kind == PUT)
        rc = kist_batch_put(job->batch, o->key, o->value);
    else if (o->kind == DELETE)
        rc = kist_batch_delete(job->batch, o->key);
    else
        rc = kist_batch_expect(job->batch, o->key, o->sequence);
    if (rc == KIST_OK && o->kind == EXPECT)
        rc = keep_expected(job, o);
    return rc == KIST_OK ? STATUS_DONE : session_fail(&job->s, rc);
}

static int add_all(struct job *job)
{
    uint64_t size = (uint64_t)job->reader.size;
    struct operation o;
    ssize_t len;
    int status = reader_line(&job->reader, &len);

    while (status == STATUS_DONE && len >= 0) {
        status = take_operation(&job->reader, len, &o);
        if (status == STATUS_DONE)
            status = add(job, &o);
        if (size > 0) /* else nobody knows how much there is to come */
            progress_update(&job->bar, reader_at(&job->reader), size);
        if (status == STATUS_DONE)
            status = reader_line(&job->reader, &len);
    }
    return status;
}

static void print_committed(const struct job *job, const struct args *args, uint64_t changes)
{
    if (args_has(args, OPT_JSON)) {
        json_begin();
        json_text("bank", job->s.bank_name);
        json_u64("changes", changes);
        json_end();
    } else if (!job->s.quiet) {
        out_text("bank %s: %" PRIu64 " changes, made all at once\n", quoted(job->s.bank_name),
                 changes);
    }
}

static int commit(struct job *job, const struct args *args)
{
    uint64_t changes = kist_batch_count(job->batch);
    int rc = kist_batch_commit(job->batch);

    if (rc == KIST_CHANGED || rc == KIST_MISS || rc == KIST_EXISTS)
        return fail_expected(job);
    if (rc != KIST_OK)
        return session_fail(&job->s, rc);
    print_committed(job, args, changes);
    return STATUS_DONE;
}

static int run_batch(struct job *job, const struct args *args)
{
    int status, rc = kist_batch_open(&job->batch, job->s.bank);

    if (rc != KIST_OK)
        return session_fail(&job->s, rc);
    progress_start(&job->bar, "reading", job->s.quiet);
    status = add_all(job);
    progress_end(&job->bar);
    if (status == STATUS_DONE)
        status = commit(job, args);
    kist_batch_close(job->batch);
    forget_expected(job);
    return status;
}

int verb_batch(const struct args *args)
{
    struct job job = { .batch = NULL };
    int status = reader_open(&job.reader, args->operand[2], false);

    if (status != STATUS_DONE)
        return status;
    status = session_open(&job.s, args, SESSION_WRITE);
    if (status == STATUS_DONE)
        status = session_close(&job.s, run_batch(&job, args));
    reader_close(&job.reader);
    return status;
}

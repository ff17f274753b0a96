/*
 * One line of JSON, an object without objects in it, decoded where it stands:
 * no escape is shorter than what it means.
 */
#include "json.h"

#include "escape.h"

#include <stdint.h>
#include <string.h>

static const char not_ended[] = "the line ends in the middle of the object";

static char *skip_blanks(char *p)
{
    return p + strspn(p, " \t\r");
}

/* ---- strings ---------------------------------------------------------- */

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *at = c == '\0' ? NULL : strchr(digits, c);

    return at == NULL ? -1 : at - digits < 16 ? (int)(at - digits) : (int)(at - digits - 6);
}

/* The four digits of \uXXXX, or -1. */
static int32_t unit(const char *p)
{
    int32_t u = 0;

    for (int i = 0; i < 4; i++) {
        int d = hex_digit(p[i]);

        if (d < 0)
            return -1;
        u = u << 4 | d;
    }
    return u;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
        return out;
    }
    if (c < 0x800) {
        *out++ = (char)(0xC0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *out++ = (char)(0xE0 | c >> 12);
        } else {
            *out++ = (char)(0xF0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 0x3F));
        }
        *out++ = (char)(0x80 | (c >> 6 & 0x3F));
    }
    *out++ = (char)(0x80 | (c & 0x3F));
    return out;
}

/* *p is behind "\u". */
static const char *take_unit(char **p, char **out)
{
    int32_t high = unit(*p), low;

    if (high < 0)
        return "\\u needs four hexadecimal digits";
    *p += 4;
    if (high >= 0xDC00 && high <= 0xDFFF)
        return "half of a surrogate pair stands alone";
    if (high >= 0xD800 && high <= 0xDBFF) {
        low = (*p)[0] == '\\' && (*p)[1] == 'u' ? unit(*p + 2) : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return "half of a surrogate pair stands alone";
        *p += 6;
        high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }
    *out = put_utf8(*out, (uint32_t)high);
    return NULL;
}

/* *p is behind the backslash. */
static const char *take_escape(char **p, char **out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = **p == '\0' ? NULL : strchr(from, **p);

    if (at != NULL) {
        *(*out)++ = to[at - from];
        ++*p;
        return NULL;
    }
    if (**p != 'u')
        return "no character that may stand behind a backslash";
    ++*p;
    return take_unit(p, out);
}

/* *p is at the opening quote, and gets behind the closing one. */
static const char *take_string(char **p, const char *end, kist_bytes *text)
{
    char *from = *p + 1, *out = from;
    const char *wrong = NULL;

    text->data = from;
    while (wrong == NULL && *from != '"') {
        if (from == end)
            return "a string has no closing quote";
        if ((unsigned char)*from < 0x20)
            return "a control character stands in a string; write it as \\u00XX";
        if (*from != '\\') {
            *out++ = *from++;
            continue;
        }
        from++;
        wrong = take_escape(&from, &out);
    }
    if (wrong != NULL)
        return wrong;
    text->len = (size_t)(out - (const char *)text->data);
    *p = from + 1;
    return NULL;
}

/* ---- numbers and words ------------------------------------------------ */

static bool is_number(const char *p, size_t len)
{
    static const char digits[] = "0123456789";
    size_t at = len > 0 && p[0] == '-', n = strspn(p + at, digits);

    if (n == 0 || (n > 1 && p[at] == '0'))
        return false;
    at += n;
    if (p[at] == '.') {
        n = strspn(p + at + 1, digits);
        if (n == 0)
            return false;
        at += 1 + n;
    }
    if (p[at] == 'e' || p[at] == 'E') {
        at += p[at + 1] == '-' || p[at + 1] == '+' ? 2 : 1;
        n = strspn(p + at, digits);
        at += n;
        if (n == 0)
            return false;
    }
    return at == len;
}

static bool is_word(const char *p, size_t len)
{
    return (len == 4 && (memcmp(p, "true", 4) == 0 || memcmp(p, "null", 4) == 0)) ||
           (len == 5 && memcmp(p, "false", 5) == 0);
}

static const char *take_value(char **p, const char *end, struct json_field *field)
{
    size_t len;

    field->is_string = **p == '"';
    if (field->is_string)
        return take_string(p, end, &field->text);
    if (**p == '{' || **p == '[')
        return "an object or a list cannot stand here";
    len = strcspn(*p, " \t\r,}");
    field->text = (kist_bytes){ *p, len };
    *p += len;
    if (len == 0 && *p == end)
        return not_ended;
    return is_number(field->text.data, len) || is_word(field->text.data, len)
               ? NULL
               : "a value is no string, number, true, false or null";
}

/* ---- the object ------------------------------------------------------- */

static const char *take_field(char **p, const char *end, struct json_field *field)
{
    const char *wrong;
    kist_bytes name;

    if (*p == end)
        return not_ended;
    if (**p != '"')
        return "a field's name has to stand in quotes";
    wrong = take_string(p, end, &name);
    if (wrong != NULL)
        return wrong;
    if (memchr(name.data, '\0', name.len) != NULL)
        return "a field's name has a NUL in it";
    *p = skip_blanks(*p);
    if (**p != ':')
        return *p == end ? not_ended : "a colon is missing behind a field's name";
    ((char *)(uintptr_t)name.data)[name.len] = '\0'; /* a quote stood there, or later */
    field->name = name.data;
    *p = skip_blanks(*p + 1);
    return take_value(p, end, field);
}

const char *json_object(char *line, size_t len,
                        const char *(*each)(const struct json_field *field, void *arg), void *arg)
{
    const char *end = line + len, *wrong = NULL;
    struct json_field field;
    char *p = skip_blanks(line);

    if (!utf8_valid(line, len))
        return "the line is not UTF-8; bytes that are not go as base64";
    if (*p != '{')
        return "an object has to begin with {";
    p = skip_blanks(p + 1);
    for (bool more = *p != '}'; more && wrong == NULL;) {
        wrong = take_field(&p, end, &field);
        if (wrong != NULL)
            return wrong;
        p = skip_blanks(p);
        more = *p == ',';
        if (!more && *p != '}')
            return p == end ? not_ended : "a comma or } is missing";
        wrong = each(&field, arg);
        if (more)
            p = skip_blanks(p + 1);
    }
    if (wrong != NULL)
        return wrong;
    p = skip_blanks(p + 1);
    return p == end ? NULL : "something stands behind the object";
}

/* It is longer than what it means. */
bool json_decode(kist_bytes *bytes)
{
    char *text = (char *)(uintptr_t)bytes->data;

    if (memchr(text, '\0', bytes->len) != NULL)
        return false;
    text[bytes->len] = '\0'; /* a quote stood there, or later */
    return base64_decode((unsigned char *)text, &bytes->len, text);
}

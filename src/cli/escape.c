/*
 * Text that is safe to print: keys and names hold any bytes, a terminal obeys
 * some of them, and JSON carries only Unicode.
 */
#include "escape.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The bounds of the second byte; those of the others are 80 to BF. They shut
 * out overlong forms, surrogates and what lies above U+10FFFF. */
static bool second_byte_fits(unsigned char first, unsigned char second)
{
    switch (first) {
    case 0xE0:
        return second >= 0xA0 && second <= 0xBF;
    case 0xED:
        return second >= 0x80 && second <= 0x9F;
    case 0xF0:
        return second >= 0x90 && second <= 0xBF;
    case 0xF4:
        return second >= 0x80 && second <= 0x8F;
    default:
        return second >= 0x80 && second <= 0xBF;
    }
}

size_t utf8_sequence(const unsigned char *p, size_t left)
{
    size_t len;

    if (left == 0)
        return 0;
    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4)
        return 0;
    len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (left < len || !second_byte_fits(p[0], p[1]))
        return 0;
    for (size_t i = 2; i < len; i++)
        if (p[i] < 0x80 || p[i] > 0xBF)
            return 0;
    return len;
}

bool utf8_valid(const void *data, size_t len)
{
    const unsigned char *p = data;

    while (len > 0) {
        size_t n = utf8_sequence(p, len);

        if (n == 0)
            return false;
        p += n;
        len -= n;
    }
    return true;
}

/* Characters of several bytes that a terminal obeys instead of showing: C1
 * controls, line separators, and those that turn the writing direction. */
static bool is_control(const unsigned char *p, size_t len)
{
    uint32_t c;

    if (len == 2)
        return p[0] == 0xC2 && p[1] < 0xA0;
    if (len != 3)
        return false;
    c = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    return (c >= 0x200E && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

static size_t escape_byte(char *out, unsigned char c)
{
    static const char letters[] = "abtnvfr"; /* 7 to 13 */
    static const char hex[] = "0123456789abcdef";

    out[0] = '\\';
    if (c >= 7 && c <= 13) {
        out[1] = letters[c - 7];
        return 2;
    }
    if (c == '\\') {
        out[1] = '\\';
        return 2;
    }
    out[1] = 'x';
    out[2] = hex[c >> 4];
    out[3] = hex[c & 15];
    return 4;
}

size_t escape_one(char out[16], const unsigned char *p, size_t left, size_t *taken)
{
    size_t len = utf8_sequence(p, left), used = 0;

    *taken = len == 0 ? 1 : len;
    if (len == 0 || (len == 1 && (p[0] < 0x20 || p[0] == 0x7F || p[0] == '\\')) ||
        is_control(p, len)) {
        for (size_t i = 0; i < *taken; i++)
            used += escape_byte(out + used, p[i]);
        return used;
    }
    memcpy(out, p, len);
    return len;
}

size_t escape_text(char *buf, size_t cap, const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t used = 0, taken;
    char one[16];

    for (size_t i = 0; i < len; i += taken) {
        size_t n = escape_one(one, p + i, len - i, &taken);

        if (used + n >= cap)
            break;
        memcpy(buf + used, one, n);
        used += n;
    }
    buf[used] = '\0';
    return used;
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_group(char out[4], const unsigned char *p, size_t n)
{
    uint32_t bits = (uint32_t)p[0] << 16;

    if (n > 1)
        bits |= (uint32_t)p[1] << 8;
    if (n > 2)
        bits |= p[2];
    out[0] = base64_digits[bits >> 18];
    out[1] = base64_digits[bits >> 12 & 63];
    out[2] = n > 1 ? base64_digits[bits >> 6 & 63] : '=';
    out[3] = n > 2 ? base64_digits[bits & 63] : '=';
}

/* The six bits of a digit, -1 if it is none. */
static int base64_digit(char c)
{
    const char *at = c == '\0' ? NULL : strchr(base64_digits, c);

    return at == NULL ? -1 : (int)(at - base64_digits);
}

bool base64_decode(unsigned char *out, size_t *len, const char *text)
{
    size_t n = strlen(text), used = 0, pad = 0;

    if (n % 4 != 0)
        return false;
    while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
        pad++;
    for (size_t i = 0; i < n; i += 4) {
        size_t digits = i + 4 == n ? 4 - pad : 4;
        uint32_t bits = 0;

        for (size_t j = 0; j < 4; j++) {
            int six = j < digits ? base64_digit(text[i + j]) : 0;

            if (six < 0)
                return false;
            bits = bits << 6 | (uint32_t)six;
        }
        for (size_t j = 0; j + 1 < digits; j++)
            out[used++] = (unsigned char)(bits >> (16 - 8 * j));
    }
    *len = used;
    return true;
}

// Bytes that somebody else owns, and buffers that grow.
#include "text.h"

#include <stdlib.h>
#include <string.h>

text_t text(const char *words) { return (text_t){(const uint8_t *)words, strlen(words)}; }

bool is_same(text_t a, text_t b) { return a.length == b.length && memcmp(a.at, b.at, a.length) == 0; }

bool take_number(text_t *from, uint64_t *number) {
    size_t digits = 0;
    *number = 0;
    for (; digits < from->length; digits++) {
        uint8_t digit = (uint8_t)(from->at[digits] - '0');
        if (digit > 9) break;
        if (*number > (UINT64_MAX - digit) / 10) return false;
        *number = *number * 10 + digit;
    }
    from->at += digits;
    from->length -= digits;
    return digits > 0;
}

bool take_words(text_t *from, const char *words) {
    size_t length = strlen(words);
    if (from->length < length || memcmp(from->at, words, length) != 0) return false;
    from->at += length;
    from->length -= length;
    return true;
}

void put(buffer_t *to, text_t bytes) {
    if (bytes.length > to->room - to->length) {
        to->room = 2 * to->room + bytes.length + 32;
        to->at = realloc(to->at, to->room);
        // A trap undoes the transaction: there is nothing better to do without memory.
        if (to->at == NULL) abort();
    }
    if (bytes.length > 0) memcpy(to->at + to->length, bytes.at, bytes.length);
    to->length += bytes.length;
}

void put_byte(buffer_t *to, uint8_t byte) { put(to, (text_t){&byte, 1}); }

void put_words(buffer_t *to, const char *words) { put(to, text(words)); }

void put_number(buffer_t *to, int64_t number) {
    uint8_t digits[20];
    size_t first = sizeof digits;
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    do digits[--first] = (uint8_t)('0' + rest % 10);
    while ((rest /= 10) > 0);
    if (number < 0) digits[--first] = '-';
    put(to, (text_t){digits + first, sizeof digits - first});
}

// As much of CBOR (RFC 8949) as arguments and replies here need: maps from texts to texts, integers and booleans.
#include "cbor.h"

// The three high bits of an item's first byte.
enum { UNSIGNED = 0, NEGATIVE = 1, TEXT = 3, MAP = 5, SIMPLE = 7 };
// The five low bits where the number stands in the next 1, 2, 4 or 8 bytes; below them they are the number.
enum { NEXT_1 = 24, NEXT_2, NEXT_4, NEXT_8 };
enum { FALSE = 20, TRUE, NOTHING };

// Takes an item's head: its type, and the number that comes with it. Not of floats, whose bits are no such number.
static bool take_head(text_t *from, uint8_t *type, uint64_t *number) {
    if (from->length == 0) return false;
    uint8_t first = *from->at, low = first & 0x1f;
    if (low > NEXT_8) return false;
    size_t more = low < NEXT_1 ? 0 : (size_t)1 << (low - NEXT_1);
    *type = first >> 5;
    if (from->length < 1 + more || (*type == SIMPLE && more > 0)) return false;
    *number = more == 0 ? low : 0;
    for (size_t i = 1; i <= more; i++) *number = *number << 8 | from->at[i];
    from->at += 1 + more;
    from->length -= 1 + more;
    return true;
}

static bool take_item(text_t *from, cbor_t *item) {
    uint8_t type;
    uint64_t number;
    if (!take_head(from, &type, &number)) return false;
    switch (type) {
    case TEXT:
        if (number > from->length) return false;
        *item = (cbor_t){.kind = CBOR_TEXT, .text = {from->at, (size_t)number}};
        from->at += number;
        from->length -= number;
        return true;
    case UNSIGNED:
    case NEGATIVE:
        if (number > INT64_MAX) return false;
        *item = (cbor_t){.kind = CBOR_INTEGER, .integer = type == UNSIGNED ? (int64_t)number : -1 - (int64_t)number};
        return true;
    case SIMPLE:
        *item = (cbor_t){.kind = CBOR_BOOLEAN, .boolean = number == TRUE};
        return number == FALSE || number == TRUE;
    default:
        return false;
    }
}

bool cbor_find(text_t map, const char *key, cbor_kind_t kind, cbor_t *found) {
    uint8_t type;
    uint64_t pairs;
    if (!take_head(&map, &type, &pairs) || type != MAP) return false;
    for (; pairs > 0; pairs--) {
        cbor_t name;
        if (!take_item(&map, &name) || !take_item(&map, found)) return false;
        if (name.kind == CBOR_TEXT && is_same(name.text, text(key))) return found->kind == kind;
    }
    return false;
}

static void put_head(buffer_t *to, uint8_t type, uint64_t number) {
    if (number < NEXT_1) {
        put_byte(to, (uint8_t)(type << 5 | (uint8_t)number));
        return;
    }
    uint8_t low = number <= UINT8_MAX ? NEXT_1 : number <= UINT16_MAX ? NEXT_2 : number <= UINT32_MAX ? NEXT_4 : NEXT_8;
    put_byte(to, (uint8_t)(type << 5 | low));
    for (int shift = (8 << (low - NEXT_1)) - 8; shift >= 0; shift -= 8) put_byte(to, (uint8_t)(number >> shift));
}

void cbor_put_map(buffer_t *to, uint64_t pairs) { put_head(to, MAP, pairs); }

void cbor_put_text(buffer_t *to, const char *words) {
    put_head(to, TEXT, text(words).length);
    put_words(to, words);
}

void cbor_put_unsigned(buffer_t *to, uint64_t number) { put_head(to, UNSIGNED, number); }

void cbor_put_boolean(buffer_t *to, bool boolean) { put_head(to, SIMPLE, boolean ? TRUE : FALSE); }

void cbor_put_null(buffer_t *to) { put_head(to, SIMPLE, NOTHING); }

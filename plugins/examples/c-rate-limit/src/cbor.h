// As much of CBOR (RFC 8949) as arguments and replies here need: maps from texts to texts, integers and booleans.
#pragma once
#include "text.h"

typedef enum { CBOR_TEXT, CBOR_INTEGER, CBOR_BOOLEAN } cbor_kind_t;

typedef struct {
    cbor_kind_t kind;
    text_t text;
    int64_t integer;
    bool boolean;
} cbor_t;

// Looks a key up in a map of definite length. False when it is not there, or when the bytes are not of this kind.
bool cbor_find(text_t map, const char *key, cbor_kind_t kind, cbor_t *found);

void cbor_put_map(buffer_t *to, uint64_t pairs);
void cbor_put_text(buffer_t *to, const char *words);
void cbor_put_unsigned(buffer_t *to, uint64_t number);
void cbor_put_boolean(buffer_t *to, bool boolean);
void cbor_put_null(buffer_t *to);

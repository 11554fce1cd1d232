// Bytes that somebody else owns, and buffers that grow.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at;
    size_t length;
} text_t;

typedef struct {
    uint8_t *at;
    size_t length;
    size_t room;
} buffer_t;

text_t text(const char *words);
bool is_same(text_t a, text_t b);

// Reads a decimal number at the front of a text, if there is one that fits, and takes it off.
bool take_number(text_t *from, uint64_t *number);
// Takes these words off the front of a text, if they are there.
bool take_words(text_t *from, const char *words);

void put_byte(buffer_t *to, uint8_t byte);
void put(buffer_t *to, text_t bytes);
void put_words(buffer_t *to, const char *words);
void put_number(buffer_t *to, int64_t number);

// The arithmetic of token buckets: pure, so that it can be tested without a tree.
#pragma once
#include "text.h"

// A level is counted in these.
#define MILLIONTHS ((uint64_t)1000000)

// So many tokens flow into a bucket in so long, and so many fit.
typedef struct {
    uint64_t tokens;
    uint64_t period_ms;
    uint64_t burst;
    // How long an empty one takes to be full.
    uint64_t fill_ms;
} limit_t;

typedef struct {
    // Millionths of tokens that were in it then.
    uint64_t level;
    uint64_t at_ms;
} bucket_t;

// How a limit is written, for messages.
#define LIMIT_FORM "write TOKENS/s, TOKENS/m or TOKENS/h, then, if more or fewer may be taken at once, burst TOKENS: 100/m burst 20"

// Reads a limit. Returns NULL, or what is wrong with it.
const char *limit_parse(text_t from, limit_t *limit);

// Reads a bucket as it is stored: level and time. False when it is none.
bool bucket_parse(text_t from, bucket_t *bucket);
void bucket_put(buffer_t *to, bucket_t bucket);

bucket_t bucket_full(limit_t limit, uint64_t now_ms);
// What it holds now. Never more than fits, also when the limit was lowered since; rounded down.
bucket_t bucket_at(bucket_t bucket, limit_t limit, uint64_t now_ms);
// How long until it holds so many tokens, rounded up; no more than fit.
uint64_t bucket_wait_ms(bucket_t bucket, limit_t limit, uint64_t tokens);

// The arithmetic of token buckets: pure, so that it can be tested without a tree.
#include "bucket.h"

#include <stddef.h>

// The greatest number in a limit. With it, and an hour as the greatest period, no product below exceeds 64 bits:
// 10^6 tokens * 10^6 millionths * 3,600,000 ms = 3.6 * 10^18.
#define TOKENS_MAX 1000000
// A month. A bucket is kept until it is full, and the tree keeps nothing with a time to live of more than ten years.
#define FILL_MAX_MS ((uint64_t)30 * 24 * 60 * 60 * 1000)

static uint64_t divided_up(uint64_t number, uint64_t by) { return number / by + (number % by > 0); }

static uint64_t take_period_ms(text_t *from) {
    if (take_words(from, "/s")) return 1000;
    if (take_words(from, "/m")) return 60 * 1000;
    if (take_words(from, "/h")) return 60 * 60 * 1000;
    return 0;
}

const char *limit_parse(text_t from, limit_t *limit) {
    if (!take_number(&from, &limit->tokens)) return "it does not begin with a number";
    limit->period_ms = take_period_ms(&from);
    if (limit->period_ms == 0) return "its number is not followed by /s, /m or /h";
    limit->burst = limit->tokens;
    if (take_words(&from, " burst ") && !take_number(&from, &limit->burst)) return "burst is not followed by a number";
    // What an editor or a shell adds.
    take_words(&from, "\n");
    if (from.length > 0) return "something follows that is not burst and a number";
    if (limit->tokens < 1 || limit->burst < 1) return "its numbers are at least 1";
    if (limit->tokens > TOKENS_MAX || limit->burst > TOKENS_MAX) return "its numbers are at most 1000000";
    limit->fill_ms = divided_up(limit->burst * limit->period_ms, limit->tokens);
    if (limit->fill_ms > FILL_MAX_MS) return "a bucket would take more than 30 days to be full";
    return NULL;
}

bool bucket_parse(text_t from, bucket_t *bucket) {
    return take_number(&from, &bucket->level) && take_words(&from, " millionths at ") && take_number(&from, &bucket->at_ms)
        && from.length == 0;
}

void bucket_put(buffer_t *to, bucket_t bucket) {
    put_number(to, (int64_t)bucket.level);
    put_words(to, " millionths at ");
    put_number(to, (int64_t)bucket.at_ms);
}

bucket_t bucket_full(limit_t limit, uint64_t now_ms) { return (bucket_t){limit.burst * MILLIONTHS, now_ms}; }

bucket_t bucket_at(bucket_t bucket, limit_t limit, uint64_t now_ms) {
    bucket_t full = bucket_full(limit, now_ms);
    // Time that stood still or went back adds nothing, and is not counted a second time when it goes on.
    if (now_ms <= bucket.at_ms) return (bucket_t){bucket.level < full.level ? bucket.level : full.level, bucket.at_ms};
    uint64_t passed_ms = now_ms - bucket.at_ms;
    if (passed_ms >= limit.fill_ms || bucket.level >= full.level) return full;
    uint64_t level = bucket.level + passed_ms * limit.tokens * MILLIONTHS / limit.period_ms;
    return level < full.level ? (bucket_t){level, now_ms} : full;
}

uint64_t bucket_wait_ms(bucket_t bucket, limit_t limit, uint64_t tokens) {
    uint64_t wanted = tokens * MILLIONTHS;
    if (bucket.level >= wanted) return 0;
    return divided_up((wanted - bucket.level) * limit.period_ms, limit.tokens * MILLIONTHS);
}

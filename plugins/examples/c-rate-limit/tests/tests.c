// Tests of the parts that need no tree: build.sh compiles them for the machine at hand, and runs them. Not part of the
// component.
#include "bucket.h"
#include "cbor.h"

#include <stdio.h>
#include <string.h>

static bool all_hold;

static void holds(bool does, const char *what) {
    if (does) return;
    all_hold = false;
    printf("does not hold: %s\n", what);
}

#define HOLDS(condition) holds(condition, #condition)

static limit_t limit(const char *words) {
    limit_t limit = {0};
    const char *wrong = limit_parse(text(words), &limit);
    holds(wrong == NULL, words);
    return limit;
}

static bool is_wrong(const char *words, const char *why) {
    limit_t limit;
    const char *wrong = limit_parse(text(words), &limit);
    return wrong != NULL && strstr(wrong, why) != NULL;
}

static void a_limit_says_how_many_in_how_long_and_how_many_at_once(void) {
    limit_t l = limit("100/m burst 20");
    HOLDS(l.tokens == 100 && l.period_ms == 60000 && l.burst == 20 && l.fill_ms == 12000);
    HOLDS(limit("5/s\n").burst == 5);
    HOLDS(limit("7/h").fill_ms == 3600000);
    HOLDS(limit("3/s burst 1").fill_ms == 334);
}

static void what_is_no_limit_is_refused_in_words(void) {
    HOLDS(is_wrong("", "number"));
    HOLDS(is_wrong("-1/s", "number"));
    HOLDS(is_wrong("99999999999999999999/s", "number"));
    HOLDS(is_wrong("10", "/s, /m or /h"));
    HOLDS(is_wrong("10/d", "/s, /m or /h"));
    HOLDS(is_wrong("10/s burst ", "burst"));
    HOLDS(is_wrong("10/s burst 5 ", "follows"));
    HOLDS(is_wrong("0/s", "at least 1"));
    HOLDS(is_wrong("1/s burst 0", "at least 1"));
    HOLDS(is_wrong("1000001/s", "at most"));
    HOLDS(is_wrong("1/h burst 1000", "30 days"));
}

static void a_bucket_fills_with_time_and_no_further_than_its_burst(void) {
    limit_t l = limit("100/m burst 20");
    bucket_t empty = {0, 1000};
    HOLDS(bucket_at(empty, l, 1000).level == 0);
    HOLDS(bucket_at(empty, l, 1600).level == 1 * MILLIONTHS);
    HOLDS(bucket_at(empty, l, 12999).level == 19998333);
    HOLDS(bucket_at(empty, l, 13000).level == 20 * MILLIONTHS);
    HOLDS(bucket_at(empty, l, UINT64_MAX).level == 20 * MILLIONTHS);
}

static void time_that_goes_back_adds_nothing_twice(void) {
    bucket_t bucket = bucket_at((bucket_t){0, 5000}, limit("1/s"), 4000);
    HOLDS(bucket.level == 0 && bucket.at_ms == 5000);
}

static void a_lowered_limit_holds_at_once(void) {
    HOLDS(bucket_at((bucket_t){50 * MILLIONTHS, 1000}, limit("1/s burst 2"), 1000).level == 2 * MILLIONTHS);
    HOLDS(bucket_at((bucket_t){50 * MILLIONTHS, 1000}, limit("1/s burst 2"), 1001).level == 2 * MILLIONTHS);
}

static void who_waits_as_long_as_told_gets_its_tokens(void) {
    const char *limits[] = {"1/s", "3/s burst 2", "7/h burst 5", "1000000/s", "999983/h burst 1000000", "1000000/h"};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit_t l = limit(limits[i]);
        for (uint64_t level = 0; level < 3 * MILLIONTHS; level += 333667) {
            for (uint64_t tokens = 1; tokens <= l.burst; tokens += 1 + l.burst / 7) {
                bucket_t bucket = {level < l.burst * MILLIONTHS ? level : l.burst * MILLIONTHS, 1000};
                uint64_t wait_ms = bucket_wait_ms(bucket, l, tokens);
                HOLDS(bucket_at(bucket, l, 1000 + wait_ms).level >= tokens * MILLIONTHS);
                HOLDS(wait_ms == 0 || bucket_at(bucket, l, 999 + wait_ms).level < tokens * MILLIONTHS);
            }
        }
    }
}

static void a_bucket_is_read_as_it_was_stored(void) {
    buffer_t data = {0};
    bucket_t read, bucket = {18333000, 1700000000000};
    bucket_put(&data, bucket);
    text_t stored = {data.at, data.length};
    HOLDS(is_same(stored, text("18333000 millionths at 1700000000000")));
    HOLDS(bucket_parse(stored, &read) && read.level == bucket.level && read.at_ms == bucket.at_ms);
    HOLDS(!bucket_parse(text(""), &read) && !bucket_parse(text("1 millionths at 2x"), &read));
}

static void arguments_are_found_by_name_and_kind(void) {
    // {"path": "/a", "tokens": -3, "much": 4294967296, "on": true}
    const char bytes[] = "\xa4\x64path\x62/a\x66tokens\x22\x64much\x1b\0\0\0\1\0\0\0\0\x62on\xf5";
    text_t map = {(const uint8_t *)bytes, sizeof bytes - 1};
    cbor_t found;
    HOLDS(cbor_find(map, "path", CBOR_TEXT, &found) && is_same(found.text, text("/a")));
    HOLDS(cbor_find(map, "tokens", CBOR_INTEGER, &found) && found.integer == -3);
    HOLDS(cbor_find(map, "much", CBOR_INTEGER, &found) && found.integer == 4294967296);
    HOLDS(cbor_find(map, "on", CBOR_BOOLEAN, &found) && found.boolean);
    HOLDS(!cbor_find(map, "path", CBOR_INTEGER, &found));
    HOLDS(!cbor_find(map, "other", CBOR_TEXT, &found));
    for (size_t length = 0; length < map.length; length++) {
        HOLDS(!cbor_find((text_t){map.at, length}, "on", CBOR_BOOLEAN, &found));
    }
}

static void replies_are_the_shortest_cbor(void) {
    buffer_t reply = {0};
    cbor_put_map(&reply, 2);
    cbor_put_text(&reply, "left");
    cbor_put_boolean(&reply, false);
    uint64_t numbers[] = {23, 24, 255, 256, 65535, 65536, 4294967295, 4294967296};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) cbor_put_unsigned(&reply, numbers[i]);
    const char bytes[] = "\xa2\x64left\xf4\x17\x18\x18\x18\xff\x19\1\0\x19\xff\xff\x1a\0\1\0\0\x1a\xff\xff\xff\xff\x1b\0\0\0\1\0\0\0\0";
    HOLDS(is_same((text_t){reply.at, reply.length}, (text_t){(const uint8_t *)bytes, sizeof bytes - 1}));
}

static void numbers_are_written_in_decimal(void) {
    buffer_t words = {0};
    int64_t numbers[] = {0, 10, -7, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        put_number(&words, numbers[i]);
        put_byte(&words, ' ');
    }
    HOLDS(is_same((text_t){words.at, words.length}, text("0 10 -7 -9223372036854775808 9223372036854775807 ")));
}

#define TEST(name) {#name, name}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    TEST(a_limit_says_how_many_in_how_long_and_how_many_at_once),
    TEST(what_is_no_limit_is_refused_in_words),
    TEST(a_bucket_fills_with_time_and_no_further_than_its_burst),
    TEST(time_that_goes_back_adds_nothing_twice),
    TEST(a_lowered_limit_holds_at_once),
    TEST(who_waits_as_long_as_told_gets_its_tokens),
    TEST(a_bucket_is_read_as_it_was_stored),
    TEST(arguments_are_found_by_name_and_kind),
    TEST(replies_are_the_shortest_cbor),
    TEST(numbers_are_written_in_decimal),
};

int main(void) {
    int passed = 0, failed = 0;
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        all_hold = true;
        tests[i].run();
        if (all_hold) {
            passed++;
        } else {
            failed++;
            printf("FAILED: %s\n", tests[i].name);
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}

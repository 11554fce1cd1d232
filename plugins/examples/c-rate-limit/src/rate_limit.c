// Lets each caller do so much in so long: a token bucket for each caller and limit.
//
// A limit is a znode such as /rate-limits/mail, with data such as `100/m burst 20`. The buckets of its callers are its
// children, named after their principals. A full bucket says no more than a missing one, so each has the time that it
// takes to fill as its time to live: what nobody uses goes by itself.
#include "bucket.h"
#include "cbor.h"
#include "limiter.h"
#include "text.h"

#include <stdlib.h>

// The generated types for strings, paths and lists of bytes all have a pointer and a length.
#define TEXT_OF(theirs) ((text_t){(theirs).ptr, (theirs).len})
#define GIVE(buffer) {(buffer).at, (buffer).length}

// A run that can't go on: what its caller is told.
typedef buffer_t error_t;

static bool fails(error_t *error, text_t where, const char *why) {
    put(error, where);
    put_words(error, ": ");
    put_words(error, why);
    return false;
}

static bool is_refused(error_t *error, const conclave_plugin_types_refusal_t *refusal) {
    put(error, TEXT_OF(refusal->code));
    put_words(error, ": ");
    put(error, TEXT_OF(refusal->message));
    return false;
}

// One caller's bucket of one limit, as it is now.
typedef struct {
    text_t limit_path;
    limit_t limit;
    buffer_t path;
    bucket_t now;
    // Whether it is in the tree, and with which time to live.
    bool exists;
    uint64_t ttl_ms;
} place_t;

static bool find_limit(text_t path, limit_t *limit, error_t *error) {
    limiter_string_t p = {(uint8_t *)path.at, path.length};
    conclave_plugin_tree_option_znode_t found;
    conclave_plugin_tree_refusal_t refusal;
    if (!conclave_plugin_tree_get(&p, &found, &refusal)) return is_refused(error, &refusal);
    if (!found.is_some) return fails(error, path, "no such limit: an administrator creates it, with data such as 100/m burst 20");
    const char *wrong = limit_parse(TEXT_OF(found.val.data), limit);
    return wrong == NULL || fails(error, path, wrong);
}

// The path of a principal's bucket. Principals are URIs, and a name has no slash in it: all but letters, digits, - and _
// are written as % and two digits, so that no two principals share a bucket.
static void put_bucket_path(buffer_t *to, text_t limit_path, text_t principal) {
    put(to, limit_path);
    put_byte(to, '/');
    for (size_t i = 0; i < principal.length; i++) {
        uint8_t byte = principal.at[i];
        bool is_plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || byte == '-' || byte == '_';
        if (is_plain) {
            put_byte(to, byte);
        } else {
            put_byte(to, '%');
            put_byte(to, (uint8_t)"0123456789abcdef"[byte >> 4]);
            put_byte(to, (uint8_t)"0123456789abcdef"[byte & 15]);
        }
    }
}

static bool find_bucket(text_t args, place_t *place, error_t *error) {
    cbor_t path;
    conclave_plugin_context_identity_t caller;
    if (!cbor_find(args, "path", CBOR_TEXT, &path)) return fails(error, text("path"), "not a text");
    if (!conclave_plugin_context_caller(&caller)) return fails(error, path.text, "only callers have buckets, and nobody called");
    *place = (place_t){.limit_path = path.text};
    if (!find_limit(path.text, &place->limit, error)) return false;
    put_bucket_path(&place->path, path.text, TEXT_OF(caller.principal));

    uint64_t now_ms = conclave_plugin_context_now_ms();
    limiter_string_t p = GIVE(place->path);
    conclave_plugin_tree_option_znode_t found;
    conclave_plugin_tree_refusal_t refusal;
    if (!conclave_plugin_tree_get(&p, &found, &refusal)) return is_refused(error, &refusal);
    place->exists = found.is_some;
    place->now = bucket_full(place->limit, now_ms);
    if (!found.is_some) return true;
    bucket_t stored;
    if (!bucket_parse(TEXT_OF(found.val.data), &stored)) {
        return fails(error, TEXT_OF(p), "its data is no bucket: delete it, and it counts as full");
    }
    place->ttl_ms = found.val.stat.ttl_ms.is_some ? found.val.stat.ttl_ms.val : 0;
    place->now = bucket_at(stored, place->limit, now_ms);
    return true;
}

static bool store(const place_t *place, error_t *error) {
    buffer_t data = {0};
    bucket_put(&data, place->now);
    limiter_string_t path = GIVE(place->path);
    limiter_list_u8_t bytes = GIVE(data);
    conclave_plugin_tree_refusal_t refusal;
    bool lives_as_long = place->ttl_ms == place->limit.fill_ms;
    if (place->exists && lives_as_long) {
        conclave_plugin_tree_stat_t stat;
        return conclave_plugin_tree_set(&path, &bytes, NULL, &stat, &refusal) || is_refused(error, &refusal);
    }
    // The limit is another one by now, and a time to live can't be changed.
    if (place->exists && !conclave_plugin_tree_delete(&path, NULL, &refusal)) return is_refused(error, &refusal);
    conclave_plugin_tree_create_options_t options = {.ttl_ms = {.is_some = true, .val = place->limit.fill_ms}};
    conclave_plugin_tree_created_t created;
    return conclave_plugin_tree_create(&path, &bytes, &options, &created, &refusal) || is_refused(error, &refusal);
}

static bool find_tokens(text_t args, const place_t *place, uint64_t *tokens, error_t *error) {
    cbor_t given;
    if (!cbor_find(args, "tokens", CBOR_INTEGER, &given)) return fails(error, text("tokens"), "not an integer");
    if (given.integer >= 1 && (uint64_t)given.integer <= place->limit.burst) {
        *tokens = (uint64_t)given.integer;
        return true;
    }
    put_words(error, "tokens: ");
    put_number(error, given.integer);
    put_words(error, " is not within 1 and ");
    put_number(error, (int64_t)place->limit.burst);
    put_words(error, ", the burst of ");
    put(error, place->limit_path);
    return false;
}

// Takes the tokens if they are there. A caller that has to wait writes nothing, so it costs the cluster little to ask often.
static bool allow(text_t args, buffer_t *reply, error_t *error) {
    place_t place;
    uint64_t tokens;
    if (!find_bucket(args, &place, error) || !find_tokens(args, &place, &tokens, error)) return false;
    uint64_t wait_ms = bucket_wait_ms(place.now, place.limit, tokens);
    if (wait_ms == 0) {
        place.now.level -= tokens * MILLIONTHS;
        if (!store(&place, error)) return false;
    }
    cbor_put_map(reply, 3);
    cbor_put_text(reply, "allowed");
    cbor_put_boolean(reply, wait_ms == 0);
    cbor_put_text(reply, "left");
    cbor_put_unsigned(reply, place.now.level / MILLIONTHS);
    cbor_put_text(reply, "wait_ms");
    cbor_put_unsigned(reply, wait_ms);
    return true;
}

// Gives back what a cancelled call took: its caller never learned that it may go on.
static bool give_back(text_t args, text_t done, error_t *error) {
    cbor_t allowed;
    if (!cbor_find(done, "allowed", CBOR_BOOLEAN, &allowed) || !allowed.boolean) return true;
    place_t place;
    uint64_t tokens;
    if (!find_bucket(args, &place, error) || !find_tokens(args, &place, &tokens, error)) return false;
    // A bucket that went was full.
    if (!place.exists) return true;
    place.now.level += tokens * MILLIONTHS;
    uint64_t full = bucket_full(place.limit, 0).level;
    if (place.now.level > full) place.now.level = full;
    return store(&place, error);
}

bool exports_conclave_plugin_procedures_call(
    limiter_string_t *name, limiter_list_u8_t *args, exports_conclave_plugin_procedures_resumed_t *resumed,
    exports_conclave_plugin_procedures_answer_t *answer, limiter_string_t *refusal) {
    buffer_t reply = {0};
    error_t error = {0};
    bool is_well = true;
    if (!is_same(TEXT_OF(*name), text("allow"))) {
        is_well = fails(&error, TEXT_OF(*name), "no such procedure");
    } else if (resumed != NULL) {
        // It never parks, so it is only ever run again to be cancelled; nobody waits for this answer.
        if (resumed->done.is_some) is_well = give_back(TEXT_OF(*args), TEXT_OF(resumed->done.val), &error);
        cbor_put_null(&reply);
    } else {
        is_well = allow(TEXT_OF(*args), &reply, &error);
    }
    answer->tag = EXPORTS_CONCLAVE_PLUGIN_PROCEDURES_ANSWER_DONE;
    answer->val.done = (limiter_list_u8_t)GIVE(reply);
    *refusal = (limiter_string_t)GIVE(error);
    return is_well;
}

// How many tokens the caller has.
bool exports_conclave_plugin_queries_query(
    limiter_string_t *name, limiter_list_u8_t *args, limiter_list_u8_t *answer, limiter_string_t *refusal) {
    buffer_t reply = {0};
    error_t error = {0};
    place_t place;
    bool is_well = is_same(TEXT_OF(*name), text("left")) ? find_bucket(TEXT_OF(*args), &place, &error)
                                                         : fails(&error, TEXT_OF(*name), "no such query");
    if (is_well) {
        cbor_put_map(&reply, 2);
        cbor_put_text(&reply, "left");
        cbor_put_unsigned(&reply, place.now.level / MILLIONTHS);
        cbor_put_text(&reply, "burst");
        cbor_put_unsigned(&reply, place.limit.burst);
    }
    *answer = (limiter_list_u8_t)GIVE(reply);
    *refusal = (limiter_string_t)GIVE(error);
    return is_well;
}

// Refuses data that is no limit, whoever writes it: the writer is told, instead of every caller afterwards.
void exports_conclave_plugin_before_check(
    limiter_string_t *trigger, exports_conclave_plugin_before_change_t *change,
    exports_conclave_plugin_before_verdict_t *verdict) {
    (void)trigger;
    limit_t limit;
    verdict->tag = EXPORTS_CONCLAVE_PLUGIN_BEFORE_VERDICT_ALLOW;
    const char *wrong = change->data.is_some ? limit_parse(TEXT_OF(change->data.val), &limit) : NULL;
    if (wrong == NULL) return;
    error_t error = {0};
    fails(&error, TEXT_OF(change->path), "no limit: ");
    put_words(&error, wrong);
    put_words(&error, "; " LIMIT_FORM);
    verdict->tag = EXPORTS_CONCLAVE_PLUGIN_BEFORE_VERDICT_REFUSE;
    verdict->val.refuse = (limiter_string_t)GIVE(error);
}

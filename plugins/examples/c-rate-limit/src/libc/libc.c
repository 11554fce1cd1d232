// The few functions of the C library that are needed. A whole one would do too, as long as it brings no import of WASI
// along: the host has none to give, and refuses the component.
#include "stdlib.h"
#include "string.h"

#include <stdint.h>

#define PAGE ((size_t)65536)

// Where the linker ends the static data: what is behind is ours.
extern unsigned char __heap_base;

// Lies before each block, whose alignment it keeps.
typedef struct {
    _Alignas(16) size_t bytes;
} header_t;

// Blocks are cut from the memory one behind the other, and never given back: each run has an instance of its own, which
// goes as a whole when the run ends.
static uintptr_t next;

void *malloc(size_t bytes) {
    if (next == 0) next = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
    size_t end = __builtin_wasm_memory_size(0) * PAGE, room = end > next ? end - next : 0;
    if (bytes > SIZE_MAX - sizeof(header_t) - 15) return NULL;
    size_t wanted = sizeof(header_t) + ((bytes + 15) & ~(size_t)15);
    if (wanted > room) {
        size_t pages = (wanted - room + PAGE - 1) / PAGE;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return NULL;
    }
    header_t *header = (header_t *)next;
    header->bytes = bytes;
    next += wanted;
    return header + 1;
}

void *calloc(size_t count, size_t bytes) {
    size_t all;
    if (__builtin_mul_overflow(count, bytes, &all)) return NULL;
    void *block = malloc(all);
    return block == NULL ? NULL : memset(block, 0, all);
}

void *realloc(void *block, size_t bytes) {
    size_t had = block == NULL ? 0 : ((header_t *)block - 1)->bytes;
    if (block != NULL && bytes <= had) return block;
    void *larger = malloc(bytes);
    return larger == NULL || had == 0 ? larger : memcpy(larger, block, had);
}

void free(void *block) { (void)block; }

_Noreturn void abort(void) { __builtin_trap(); }

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (bytes-- > 0) *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    if (to <= from) return memcpy(to, from, bytes);
    unsigned char *t = to;
    const unsigned char *f = from;
    while (bytes-- > 0) t[bytes] = f[bytes];
    return to;
}

void *memset(void *at, int byte, size_t bytes) {
    for (unsigned char *t = at; bytes > 0; bytes--) *t++ = (unsigned char)byte;
    return at;
}

int memcmp(const void *a, const void *b, size_t bytes) {
    const unsigned char *x = a, *y = b;
    for (; bytes > 0; bytes--, x++, y++) {
        if (*x != *y) return *x - *y;
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != '\0') length++;
    return length;
}

// Blocks of fibers: the other half of machine.h.
#include "machine.h"

#include <csetjmp>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

Position threadIdx, blockIdx;
unsigned char *dynamic_memory;

namespace {

constexpr std::size_t STACK = 256 << 10;
constexpr int WARP = 32;
enum State { READY, AT_BLOCK, AT_WARP, DONE };

struct Copy {
    void *to;
    const void *from;  // null: zeros
    int group;
};

struct Fiber {
    jmp_buf place;
    ucontext_t start;
    bool started = false;
    State state;
    int site;
    Position thread;
    alignas(16) unsigned char shown[64];
    std::vector<Copy> copies;
    int groups = 0;  // of copies that were committed
};

std::vector<Fiber *> fibers;
Fiber *current;  // null outside of fibers
jmp_buf scheduler;
const char *failure;
void (*work)(void **);
void **arguments;
unsigned random_state = 1;

unsigned drawn(unsigned below) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % below;
}

void run() {
    for (;;) {
        work(arguments);
        if (!current->copies.empty()) failure = "copies that nobody waited for";
        current->state = DONE;
        if (!_setjmp(current->place)) _longjmp(scheduler, 1);
    }
}

void wait(State state, int site) {
    if (current == nullptr) {
        failure = "a thread waits in a kernel that was started as one without barriers";
        return;
    }
    current->state = state;
    current->site = site;
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

void resume(Fiber *fiber) {
    current = fiber;
    threadIdx = fiber->thread;
    if (_setjmp(scheduler)) {
        current = nullptr;
        return;
    }
    if (fiber->started) _longjmp(fiber->place, 1);
    fiber->started = true;
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_size = STACK;
    if (fiber->start.uc_stack.ss_sp == nullptr) {
        const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        fiber->start.uc_stack.ss_sp = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, flags, -1, 0);
    }
    makecontext(&fiber->start, run, 0);
    setcontext(&fiber->start);
}

// Whether all fibers from first to last wait in the same way at the same place; they go on if they do.
bool released(int first, int last, State state) {
    for (int n = first; n < last; ++n) {
        if (fibers[n]->state != state || fibers[n]->site != fibers[first]->site) return false;
    }
    for (int n = first; n < last; ++n) fibers[n]->state = READY;
    return true;
}

void run_block(int count) {
    int left = count;
    while (left && failure == nullptr) {
        // In another order each time: who relies on one without a barrier is found out.
        const int first = drawn(count), step = drawn(2) ? 1 : count - 1;
        for (int n = 0, at = first; n < count && failure == nullptr; ++n, at = (at + step) % count) {
            if (fibers[at]->state != READY) continue;
            resume(fibers[at]);
            left -= fibers[at]->state == DONE;
        }
        bool moved = left == 0;
        for (int n = 0; n < count; n += WARP) moved |= released(n, n + WARP < count ? n + WARP : count, AT_WARP);
        if (!moved && !released(0, count, AT_BLOCK) && failure == nullptr) {
            failure = "a barrier that some threads do not reach";
        }
    }
}

}  // namespace

extern "C" {

void wait_for_block(int site) { wait(AT_BLOCK, site); }
void wait_for_warp(int site) { wait(AT_WARP, site); }
int lane_of_thread() { return threadIdx.x % WARP; }
void *given(int lane) { return fibers[threadIdx.x / WARP * WARP + lane]->shown; }

void fail(const char *what) { failure = what; }

void copy_later(void *to, const void *from, bool there) {
    if (((std::size_t)to | (std::size_t)from) % 16) failure = "a copy from or to a place that is not aligned";
    current->copies.push_back({to, there ? from : nullptr, current->groups});
}

void commit_copies() { ++current->groups; }

void copies_are_made(int still) {
    std::vector<Copy> later;
    for (const Copy &copy : current->copies) {
        if (copy.group >= current->groups - still) {
            later.push_back(copy);
            continue;
        }
        if (copy.from == nullptr) memset(copy.to, 0, 16);
        else memcpy(copy.to, copy.from, 16);
    }
    current->copies = later;
}

// Runs a kernel; gives what went wrong, or null.
const char *launch(void (*kernel)(void **), void **given, const int *grid, const int *block, int dynamic, int waits) {
    const int count = block[0] * block[1] * block[2];
    std::vector<unsigned char> memory(dynamic + 128);
    dynamic_memory = memory.data() + 128 - (std::size_t)memory.data() % 128;
    failure = nullptr;
    work = kernel;
    arguments = given;
    while (waits && (int)fibers.size() < count) fibers.push_back(new Fiber());
    for (int b = 0; b < grid[0] * grid[1] * grid[2] && failure == nullptr; ++b) {
        blockIdx = {(unsigned)(b % grid[0]), (unsigned)(b / grid[0] % grid[1]), (unsigned)(b / grid[0] / grid[1])};
        memset(dynamic_memory, 0xff, dynamic);
        for (int n = 0; n < count; ++n) {
            threadIdx = {(unsigned)(n % block[0]), (unsigned)(n / block[0] % block[1]), (unsigned)(n / block[0] / block[1])};
            if (waits) {
                fibers[n]->state = READY;
                fibers[n]->thread = threadIdx;
            } else {
                kernel(given);
            }
        }
        if (waits) run_block(count);
    }
    if (failure != nullptr) {  // fibers stand where they stood
        for (Fiber *fiber : fibers) {
            fiber->started = false;
            fiber->copies.clear();
        }
    }
    return failure;
}
}

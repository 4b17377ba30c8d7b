/* Under `qemu-system-arm -icount shift=0` every instruction takes one nanosecond, and SysTick, which counts down from
 * 2^24 at the machine's clock, moves once in a fixed number of instructions. Its interrupt counts the times that it has
 * run out, some twenty instructions each.
 */
#include "probe.h"

#define CONTROL (*(volatile uint32_t *)0xE000E010)
#define RELOAD (*(volatile uint32_t *)0xE000E014)
#define CURRENT (*(volatile uint32_t *)0xE000E018)
#define LARGEST 0xFFFFFFu
#define PAINT 0xA5A5A5A5u

#define PAINTED 0x300000u /* bytes below the top of the stack: three of four MiB; files need little of the rest */

extern char __stack[]; /* the top, of the linker script */

static volatile uint32_t wraps;
static uint32_t *lowest; /* where the paint begins */
static uint32_t *start;  /* the stack pointer when counting began */

void arm_systick_isr(void)
{
    wraps++;
}

static inline uint32_t *stack_pointer(void)
{
    uint32_t *pointer;

    __asm__ volatile("mov %0, sp" : "=r"(pointer));
    return pointer;
}

void probe_start(void)
{
    start = stack_pointer();
    lowest = (uint32_t *)((uintptr_t)__stack - PAINTED);
    /* Not this function's own frame. */
    for (volatile uint32_t *word = lowest; word < start - 16; word++)
        *word = PAINT;
    CONTROL = 0;
    RELOAD = LARGEST;
    CURRENT = 0;
    wraps = 0;
    CONTROL = 7; /* the processor's clock, with interrupt, on */
}

uint64_t probe_ticks(void)
{
    uint32_t before, current;

    do {
        before = wraps;
        current = CURRENT;
    } while (before != wraps);
    return (uint64_t)before * (LARGEST + 1) + (LARGEST - current) % (LARGEST + 1);
}

uint32_t probe_stack_used(void)
{
    uint32_t *word = lowest;

    while (word < start && *word == PAINT)
        word++;
    return (uint32_t)((char *)start - (char *)word);
}

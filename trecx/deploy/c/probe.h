/* What a stage costs: instructions and stack. The host counts neither and says 0. */
#ifndef PROBE_H
#define PROBE_H

#include <stdint.h>

void probe_start(void);          /* begin to count, on a freshly painted stack */
uint64_t probe_ticks(void);      /* ticks since the beginning; a tick is INSTRUCTIONS_PER_TICK instructions */
uint32_t probe_stack_used(void); /* bytes of stack that were written since the beginning */

#endif

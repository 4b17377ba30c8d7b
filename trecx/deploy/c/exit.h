/* The exit decision, and what it needs of a network; network.h says how large it is. */
#ifndef EXIT_H
#define EXIT_H

#include <stdint.h>

#include "network.h"

/* What stage `stage` (from 0) says about the sample: its logits. Stages run in order, each at most once a sample. */
const float *run_stage(int stage, const int8_t *sample);

/* The most probable class of CLASSES logits, and its softmax in *confidence. */
int decide(const float *logits, float *confidence);

#ifdef MIX
/* What counts behind `stage`, as logits: the stage's own in the first network, in the second one mixed with the first
 * one's last. To be called behind every stage, in order. */
const float *mixed(int stage, const float *logits);
#else
#define mixed(stage, logits) (logits)
#endif

/* Whether a sample of this confidence leaves behind `stage`; it always leaves behind the last one. */
int leaves(int stage, float confidence, float threshold);

/* Classify one sample: run stages until one is confident enough. Returns the class, and the stage in *taken. */
int classify(const int8_t *sample, float threshold, float *confidence, int *taken);

#endif

#include "exit.h"

#include <math.h>

#include "network.h"

int decide(const float *logits, float *confidence)
{
    int best = 0;
    float sum = 0.0f;

    for (int k = 1; k < CLASSES; k++)
        if (logits[k] > logits[best])
            best = k;
    for (int k = 0; k < CLASSES; k++)
        sum += expf(logits[k] - logits[best]);
    *confidence = 1.0f / sum; /* the largest softmax: no other class is divided */
    return best;
}

#ifdef MIX
static void softmax(const float *logits, float share, float *answer)
{
    float highest = logits[0], sum = 0.0f;

    for (int k = 1; k < CLASSES; k++)
        if (logits[k] > highest)
            highest = logits[k];
    for (int k = 0; k < CLASSES; k++)
        sum += answer[k] = expf(logits[k] - highest);
    for (int k = 0; k < CLASSES; k++)
        answer[k] *= share / sum;
}

const float *mixed(int stage, const float *logits)
{
    static float last[CLASSES], kept[CLASSES], both[CLASSES];

    if (stage < FIRST) { /* no sample that leaves here pays more than a copy */
        for (int k = 0; k < CLASSES; k++)
            last[k] = logits[k];
        return logits;
    }
    if (stage == FIRST)
        softmax(last, MIX, kept);
    softmax(logits, 1.0f - MIX, both);
    for (int k = 0; k < CLASSES; k++)
        both[k] = logf(both[k] + kept[k]);
    return both;
}
#endif

int leaves(int stage, float confidence, float threshold)
{
    if (stage == STAGES - 1)
        return 1;
    return LEAVES_AT_THRESHOLD ? confidence >= threshold : confidence > threshold;
}

int classify(const int8_t *sample, float threshold, float *confidence, int *taken)
{
    for (*taken = 0;; ++*taken) {
        const float *logits = run_stage(*taken, sample);
        int label = decide(mixed(*taken, logits), confidence);

        if (leaves(*taken, *confidence, threshold))
            return label;
    }
}

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

int leaves(int stage, float confidence, float threshold)
{
    if (stage == STAGES - 1)
        return 1;
    return LEAVES_AT_THRESHOLD ? confidence >= threshold : confidence > threshold;
}

int classify(const int8_t *sample, float threshold, float *confidence, int *taken)
{
    for (*taken = 0;; ++*taken) {
        int label = decide(run_stage(*taken, sample), confidence);

        if (leaves(*taken, *confidence, threshold))
            return label;
    }
}

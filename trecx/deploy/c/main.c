/* Classify every sample of a file, stage by stage, and leave at the first confident exit.
 *
 * The file: int32 number of samples, float32 threshold, then SAMPLE_BYTES int8 values a sample; a threshold above 1
 * runs every stage. One line a stage: sample, stage, class, confidence, ticks of the stage, ticks of its decision, stack
 * in bytes, the stage's own logits (class and confidence are of the mixture, where answers are mixed). Floats are printed as the hexadecimal digits of their bits.
 */
#include <stdio.h>
#include <string.h>

#include "exit.h"
#include "network.h"
#include "probe.h"

static uint32_t bits(float value)
{
    uint32_t word;

    memcpy(&word, &value, sizeof word);
    return word;
}

/* Returns whether the sample has left. */
static int run_and_print(int number, int stage, const int8_t *sample, float threshold)
{
    float confidence;

    probe_start();
    const float *logits = run_stage(stage, sample);
    uint64_t stage_ticks = probe_ticks();
    uint32_t stack = probe_stack_used();

    probe_start();
    int label = decide(mixed(stage, logits), &confidence);
    int left = leaves(stage, confidence, threshold);
    uint64_t decision_ticks = probe_ticks();

    printf("%d %d %d %08lx %lu %lu %lu", number, stage, label, (unsigned long)bits(confidence),
           (unsigned long)stage_ticks, (unsigned long)decision_ticks, (unsigned long)stack);
    for (int k = 0; k < CLASSES; k++)
        printf(" %08lx", (unsigned long)bits(logits[k]));
    printf("\n");
    return left;
}

int main(int argc, char **argv)
{
    static int8_t sample[SAMPLE_BYTES];
    const char *path = argc > 1 ? argv[1] : "samples.bin";
    FILE *file = fopen(path, "rb");
    int32_t samples;
    float threshold;

    if (!file || fread(&samples, sizeof samples, 1, file) != 1 || fread(&threshold, sizeof threshold, 1, file) != 1) {
        printf("error: %s is no file of samples\n", path);
        return 1;
    }
    for (int number = 0; number < samples; number++) {
        if (fread(sample, 1, SAMPLE_BYTES, file) != SAMPLE_BYTES) {
            printf("error: %s ends in sample %d of %ld\n", path, number, (long)samples);
            return 1;
        }
        for (int stage = 0; !run_and_print(number, stage, sample, threshold); stage++)
            ;
    }
    fclose(file);
    printf("done\n");
    return 0;
}

/* The smallest firmware around the network: no files, no printing. Its size is what a device would hold. */
#include "exit.h"
#include "network.h"

volatile int8_t sensor[SAMPLE_BYTES];
volatile int answer;

int main(void)
{
    for (;;) {
        float confidence;
        int taken;

        answer = classify((const int8_t *)sensor, THRESHOLD, &confidence, &taken);
    }
}

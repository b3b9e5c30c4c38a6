/* A stand-in for the NVIDIA driver's management library: two GPUs whose minor numbers are not their
   indexes. With -DPARTS the second has MIG on and one MIG device; -DINIT=N makes it fail with N. */

#include <stdio.h>
#include <string.h>

#ifndef INIT
#define INIT 0
#endif

static char gpus[2], part;

int nvmlInit_v2(void) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "535.104.05");
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12020; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if (index > 1) return 2;
    *device = &gpus[index];
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    if (device == &part) snprintf(text, size, "MIG-c0ffee");
    else snprintf(text, size, "GPU-0000000%d", (int)((char *)device - gpus));
    return 0;
}
int nvmlDeviceGetMinorNumber(void *device, unsigned *minor) {
    *minor = device == &gpus[0];
    return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
#ifdef PARTS
    *current = *pending = device == &gpus[1];
    return 0;
#else
    return 3;
#endif
}
int nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned index, void **found) {
    if (index != 2) return 6;
    *found = &part;
    return 0;
}
int nvmlDeviceGetGpuInstanceId(void *device, unsigned *id) { *id = 9; return 0; }
int nvmlDeviceGetComputeInstanceId(void *device, unsigned *id) { *id = 0; return 0; }

/* A libnvidia-ml.so.1 with two devices that answer by rule: what the tests of the readings load. */

#include <string.h>

typedef unsigned int Result;
typedef struct Device* DeviceHandle;
enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };

static char devices[2];

static Result set(unsigned int* out, unsigned int value) {
    *out = value;
    return SUCCESS;
}

Result nvmlInit_v2(void) { return SUCCESS; }
Result nvmlShutdown(void) { return SUCCESS; }

Result nvmlSystemGetDriverVersion(char* version, unsigned int bytes) {
    strncpy(version, "580.82.07", bytes);
    return SUCCESS;
}

Result nvmlDeviceGetHandleByPciBusId_v2(const char* id, DeviceHandle* device) {
    for (int i = 0; i < 2; i++) {
        /* 0000:01:00.0 and 0000:02:00.0, or with a longer domain. */
        const char* bus = strstr(id, ":0");
        if (bus != NULL && bus[2] == '1' + i) {
            *device = (DeviceHandle)&devices[i];
            return SUCCESS;
        }
    }
    return NOT_FOUND;
}

static int index_of(DeviceHandle device) { return (int)((char*)device - devices); }

Result nvmlDeviceGetClockInfo(DeviceHandle device, unsigned int type, unsigned int* mhz) {
    return set(mhz, (type == 2 ? 2600 : 1700) + index_of(device));
}

Result nvmlDeviceGetMaxClockInfo(DeviceHandle device, unsigned int type, unsigned int* mhz) {
    (void)device;
    return set(mhz, type == 2 ? 2619 : 1980);
}

Result nvmlDeviceGetPowerUsage(DeviceHandle device, unsigned int* milliwatts) {
    return index_of(device) == 1 ? NOT_SUPPORTED : set(milliwatts, 412500);
}

Result nvmlDeviceGetEnforcedPowerLimit(DeviceHandle device, unsigned int* milliwatts) {
    (void)device;
    return set(milliwatts, 700000);
}

Result nvmlDeviceGetTemperature(DeviceHandle device, unsigned int sensor, unsigned int* celsius) {
    return sensor == 0 ? set(celsius, 40 + index_of(device)) : INVALID_ARGUMENT;
}

Result nvmlDeviceGetCurrentClocksThrottleReasons(DeviceHandle device, unsigned long long* reasons) {
    *reasons = index_of(device) == 0 ? 0x24 : 0;
    return SUCCESS;
}

Result nvmlDeviceGetCurrPcieLinkGeneration(DeviceHandle device, unsigned int* generation) {
    (void)device;
    return set(generation, 1);
}

Result nvmlDeviceGetCurrPcieLinkWidth(DeviceHandle device, unsigned int* lanes) {
    (void)device;
    return set(lanes, 16);
}

Result nvmlDeviceGetMaxPcieLinkGeneration(DeviceHandle device, unsigned int* generation) {
    (void)device;
    return set(generation, 5);
}

Result nvmlDeviceGetMaxPcieLinkWidth(DeviceHandle device, unsigned int* lanes) {
    (void)device;
    return set(lanes, 16);
}

Result nvmlDeviceGetNvLinkState(DeviceHandle device, unsigned int link, unsigned int* active) {
    if (index_of(device) == 1) {
        return NOT_SUPPORTED;
    }
    return link < 4 ? set(active, link != 1) : INVALID_ARGUMENT;
}

Result nvmlDeviceGetP2PStatus(DeviceHandle from, DeviceHandle to, unsigned int what,
                              unsigned int* status) {
    (void)to;
    /* 0 is OK. Only the first reaches the second by stores. */
    return set(status, what == 1 && index_of(from) == 1 ? 5 : what == 2 ? 4 : 0);
}

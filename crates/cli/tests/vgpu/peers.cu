// One half of an exchange between two devices: writes a value to the peer, raises the peer's flag,
// waits for its own, and reads what the peer wrote.

struct Exchange {
    unsigned* peer_value;
    unsigned* peer_flag;
    unsigned* my_value;
    unsigned* my_flag;
    unsigned value;
};

extern "C" __global__ void exchange(const __grid_constant__ Exchange e, unsigned* result)
{
    *e.peer_value = e.value;
    asm volatile("st.release.sys.global.u32 [%0], 1;" ::"l"(e.peer_flag) : "memory");
    unsigned seen = 0;
    while (seen == 0)
        asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(seen) : "l"(e.my_flag) : "memory");
    *result = *e.my_value;
}

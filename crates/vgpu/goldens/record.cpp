// Runs the cases of the goldens through the CUDA driver API and writes what came out. See README.md.
//
// Declares what it needs of the driver API itself, so that it builds where no toolkit is installed.

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Result = int;
using Pointer = unsigned long long;

struct alignas(64) TensorMap {
    unsigned char opaque[128];
};

// The driver's functions, by the names they are exported under.
struct Driver {
    Result (*init)(unsigned);
    Result (*device_get)(int *, int);
    Result (*device_name)(char *, int, int);
    Result (*device_attribute)(int *, int, int);
    Result (*driver_version)(int *);
    Result (*retain)(void **, int);
    Result (*set_current)(void *);
    Result (*load)(void **, const void *);
    Result (*unload)(void *);
    Result (*function)(void **, void *, const char *);
    Result (*alloc)(Pointer *, size_t);
    Result (*free)(Pointer);
    Result (*to_device)(Pointer, const void *, size_t);
    Result (*to_host)(void *, Pointer, size_t);
    Result (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **,
                     void **);
    Result (*synchronize)();
    Result (*encode)(TensorMap *, int, unsigned, void *, const uint64_t *, const uint64_t *, const uint32_t *,
                     const uint32_t *, int, int, int, int);
};

[[noreturn]] void fail(const std::string &words) {
    std::cerr << "record: " << words << "\n";
    std::exit(1);
}

void check(Result result, const std::string &what) {
    if (result != 0) fail(what + ": CUDA error " + std::to_string(result));
}

template <class F> void find(void *library, const char *name, F &into) {
    into = reinterpret_cast<F>(dlsym(library, name));
    if (into == nullptr) fail(std::string("the driver has no ") + name);
}

Driver open_driver() {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) fail(dlerror());
    Driver d{};
    find(library, "cuInit", d.init);
    find(library, "cuDeviceGet", d.device_get);
    find(library, "cuDeviceGetName", d.device_name);
    find(library, "cuDeviceGetAttribute", d.device_attribute);
    find(library, "cuDriverGetVersion", d.driver_version);
    find(library, "cuDevicePrimaryCtxRetain", d.retain);
    find(library, "cuCtxSetCurrent", d.set_current);
    find(library, "cuModuleLoadData", d.load);
    find(library, "cuModuleUnload", d.unload);
    find(library, "cuModuleGetFunction", d.function);
    find(library, "cuMemAlloc_v2", d.alloc);
    find(library, "cuMemFree_v2", d.free);
    find(library, "cuMemcpyHtoD_v2", d.to_device);
    find(library, "cuMemcpyDtoH_v2", d.to_host);
    find(library, "cuLaunchKernel", d.launch);
    find(library, "cuCtxSynchronize", d.synchronize);
    find(library, "cuTensorMapEncodeTiled", d.encode);
    return d;
}

struct Case {
    std::string name;
    std::map<std::string, std::string> words;
    std::string body;

    unsigned number(const char *key) const { return std::stoul(words.at(key)); }
};

std::vector<Case> read_cases(const char *path) {
    std::ifstream file(path);
    if (!file) fail(std::string("cannot read ") + path);
    std::vector<Case> cases;
    std::string line;
    while (std::getline(file, line)) {
        if (line.rfind("[", 0) == 0) {
            const size_t end = line.find(']');
            Case next{line.substr(1, end - 1), {}, ""};
            std::istringstream rest(line.substr(end + 1));
            for (std::string word; rest >> word;) {
                const size_t equal = word.find('=');
                next.words[word.substr(0, equal)] = word.substr(equal + 1);
            }
            cases.push_back(next);
        } else if (line.rfind("  ", 0) == 0 && !cases.empty()) {
            cases.back().body += line + "\n";
        }
    }
    return cases;
}

// The whole module of a case; tests/goldens.rs makes the same text.
std::string module_of(const Case &c) {
    const bool tensor = c.words.count("tensor") != 0;
    std::ostringstream text;
    text << ".version 8.4\n.target " << c.words.at("target") << "\n.address_size 64\n"
         << ".visible .entry golden(.param .u64 in, .param .u64 out"
         << (tensor ? ", .param .align 64 .b8 map[128]" : "") << ")\n{\n"
         << "  .reg .b32 i<32>;\n  .reg .b32 o<32>;\n  .reg .b32 r<16>;\n  .reg .b64 d<8>;\n  .reg .b16 h<8>;\n"
         << "  .reg .pred p<4>;\n  .reg .b64 from;\n  .reg .b64 to;\n  .reg .b32 thread;\n"
         << "  .shared .align 1024 .b8 smem[32768];\n  .shared .align 8 .b64 bar;\n"
         << "  ld.param.u64 from, [in];\n  ld.param.u64 to, [out];\n  mov.u32 thread, %tid.x;\n"
         << "  mad.wide.u32 from, thread, " << 4 * c.number("in") << ", from;\n"
         << "  mad.wide.u32 to, thread, " << 4 * c.number("out") << ", to;\n";
    for (unsigned k = 0; k < c.number("in"); k++) text << "  ld.global.b32 i" << k << ", [from+" << 4 * k << "];\n";
    text << c.body;
    for (unsigned k = 0; k < c.number("out"); k++) text << "  st.global.b32 [to+" << 4 * k << "], o" << k << ";\n";
    text << "  ret;\n}\n";
    return text.str();
}

struct Random {
    uint64_t state = 0xcbf29ce484222325ull;

    explicit Random(const std::string &name) {
        for (unsigned char byte : name) state = (state ^ byte) * 0x100000001b3ull;
    }

    uint64_t next() {
        state += 0x9e3779b97f4a7c15ull;
        uint64_t z = state;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        return z ^ (z >> 31);
    }
};

const uint32_t EDGES32[] = {0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x00800000, 0x3f800000, 0xbf800000, 0x7f7fffff,
                            0xff7fffff, 0x7f800000, 0xff800000, 0x7fffffff, 0x7f800001, 0x3f000000, 0x43e00000, 0x43e80000,
                            0x477fe000, 0x477ff000, 0x4f000000, 0xcf000000, 0x33800000, 0x387fc000, 0x3f80ffff, 0x42fe0000};
const uint64_t EDGES64[] = {0, 1ull << 63, 1, 0x000fffffffffffffull, 0x0010000000000000ull, 0x3ff0000000000000ull,
                            0x7fefffffffffffffull, 0x7ff0000000000000ull, 0xfff0000000000000ull, 0x7ff8000000000000ull,
                            0x36a0000000000000ull, 0x47efffffffffffffull, 0x43e0000000000000ull, 0x3ff0000000000001ull};
const uint16_t EDGES16[] = {0x0000, 0x8000, 0x0001, 0x03ff, 0x0400, 0x3c00, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x3f80,
                            0x7f80, 0xff80, 0x7fc0, 0x007f, 0x0080, 0x7f7f};

template <class T, size_t N> T edge(const T (&table)[N], uint64_t random) { return table[random % N]; }

uint32_t float_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}

// A small integer in a format, exactly.
uint32_t small(const std::string &type, Random &random) {
    const auto integer = [&] { return static_cast<float>(static_cast<int>(random.next() % 9) - 4); };
    const auto half = [](float v) -> uint32_t {
        const uint32_t bits = float_bits(v);
        const uint32_t magnitude = bits & 0x7fffffff;
        return (bits >> 16 & 0x8000) | (magnitude == 0 ? 0 : (magnitude >> 13) - (112 << 10));
    };
    if (type == "f32") return float_bits(integer());
    if (type == "bf16") {
        const uint32_t low = float_bits(integer()) >> 16;
        return low | (float_bits(integer()) & 0xffff0000);
    }
    if (type == "f16") {
        const uint32_t low = half(integer());
        return low | half(integer()) << 16;
    }
    if (type == "fp8") {
        uint32_t word = 0;
        for (int k = 0; k < 4; k++) {
            const uint64_t bits = random.next();
            word |= static_cast<uint32_t>(0x30 + bits % 24 + (bits >> 32 & 0x80)) << 8 * k;
        }
        return word;
    }
    fail("unknown element type " + type);
}

std::vector<uint32_t> inputs(const Case &c) {
    const unsigned per = c.number("in");
    const std::string kind = c.words.at("input");
    Random random(c.name);
    std::vector<uint32_t> words(static_cast<size_t>(c.number("threads")) * per);
    std::vector<std::string> parts;
    std::istringstream split(kind);
    for (std::string part; std::getline(split, part, ':');) parts.push_back(part);
    for (size_t w = 0; w < words.size(); w++) {
        if (parts[0] == "bits") {
            words[w] = random.next() >> 32;
        } else if (parts[0] == "f32") {
            const uint64_t bits = random.next();
            words[w] = w % 4 == 3 ? edge(EDGES32, bits) : bits >> 32;
        } else if (parts[0] == "f32small") {
            const int value = static_cast<int>(random.next() >> 44) - (1 << 19);
            words[w] = float_bits(static_cast<float>(3 * value) * (1.0f / (1 << 19)));
        } else if (parts[0] == "f64") {
            const uint64_t bits = random.next();
            const uint64_t value = w / 2 % 4 == 3 ? edge(EDGES64, bits) : bits;
            words[w] = static_cast<uint32_t>(value);
            words[++w] = value >> 32;
        } else if (parts[0] == "f16x2" || parts[0] == "bf16x2") {
            uint32_t word = 0;
            for (int k = 0; k < 2; k++) {
                const uint64_t bits = random.next();
                word |= static_cast<uint32_t>(bits % 4 == 3 ? edge(EDGES16, bits >> 8) : bits >> 48) << 16 * k;
            }
            words[w] = word;
        } else if (parts[0] == "bf16small") {
            words[w] = small("bf16", random);
        } else if (parts[0] == "mma") {
            words[w] = small(w % per < std::stoul(parts[2]) ? parts[1] : parts[3], random);
        } else {
            fail("unknown input " + kind);
        }
    }
    return words;
}

std::pair<unsigned, unsigned> pair_of(const std::string &text) {
    const size_t cross = text.find('x');
    return {std::stoul(text.substr(0, cross)), std::stoul(text.substr(cross + 1))};
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: record cases.txt > recorded/NAME.txt");
    const Driver d = open_driver();
    check(d.init(0), "cuInit");
    int device = 0, major = 0, minor = 0, version = 0;
    char name[128] = "";
    check(d.device_get(&device, 0), "cuDeviceGet");
    check(d.device_name(name, sizeof name, device), "cuDeviceGetName");
    check(d.device_attribute(&major, 75, device), "cuDeviceGetAttribute");
    check(d.device_attribute(&minor, 76, device), "cuDeviceGetAttribute");
    check(d.driver_version(&version), "cuDriverGetVersion");
    void *context = nullptr;
    check(d.retain(&context, device), "cuDevicePrimaryCtxRetain");
    check(d.set_current(context), "cuCtxSetCurrent");
    std::printf("# %s, sm_%d%d, driver API %d\n", name, major, minor, version);

    for (const Case &c : read_cases(argv[1])) {
        const std::string target = c.words.at("target");
        const bool specific = target.back() == 'a';
        const int wanted = std::stoi(target.substr(3));
        if (specific ? wanted != 10 * major + minor : wanted > 10 * major + minor) continue;
        void *module = nullptr, *function = nullptr;
        check(d.load(&module, module_of(c).c_str()), c.name + ": cuModuleLoadData");
        check(d.function(&function, module, "golden"), c.name + ": cuModuleGetFunction");
        const std::vector<uint32_t> in = inputs(c);
        std::vector<uint32_t> out(static_cast<size_t>(c.number("threads")) * c.number("out"));
        Pointer from = 0, to = 0, tensor = 0;
        check(d.alloc(&from, in.size() * 4 + 4), "cuMemAlloc");
        check(d.alloc(&to, out.size() * 4), "cuMemAlloc");
        if (!in.empty()) check(d.to_device(from, in.data(), in.size() * 4), "cuMemcpyHtoD");
        TensorMap map{};
        void *params[] = {&from, &to, &map};
        if (c.words.count("tensor") != 0) {
            const std::string shape = c.words.at("tensor").substr(4);
            const auto [columns, rows] = pair_of(shape);
            std::vector<uint32_t> values(columns * rows);
            for (size_t k = 0; k < values.size(); k++) values[k] = k;
            check(d.alloc(&tensor, values.size() * 4), "cuMemAlloc");
            check(d.to_device(tensor, values.data(), values.size() * 4), "cuMemcpyHtoD");
            const auto [width, height] = pair_of(c.words.at("box"));
            const uint64_t dims[] = {columns, rows}, strides[] = {columns * 4ull};
            const uint32_t box[] = {width, height}, steps[] = {1, 1};
            const std::string mode = c.words.at("swizzle");
            const int swizzle = mode == "none" ? 0 : mode == "32" ? 1 : mode == "64" ? 2 : 3;
            // CU_TENSOR_MAP_DATA_TYPE_UINT32 is 2; no interleave, no promotion, zeros outside.
            check(d.encode(&map, 2, 2, reinterpret_cast<void *>(tensor), dims, strides, box, steps, 0, swizzle, 0, 0),
                  c.name + ": cuTensorMapEncodeTiled");
        }
        check(d.launch(function, 1, 1, 1, c.number("threads"), 1, 1, 0, nullptr, params, nullptr),
              c.name + ": cuLaunchKernel");
        check(d.synchronize(), c.name + ": cuCtxSynchronize");
        check(d.to_host(out.data(), to, out.size() * 4), "cuMemcpyDtoH");
        std::printf("%s", c.name.c_str());
        for (const uint32_t word : out) std::printf(" %08" PRIx32, word);
        std::printf("\n");
        check(d.free(from), "cuMemFree");
        check(d.free(to), "cuMemFree");
        if (tensor != 0) check(d.free(tensor), "cuMemFree");
        check(d.unload(module), "cuModuleUnload");
    }
    return 0;
}

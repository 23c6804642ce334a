//! How the library is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // The name under which every program that uses the CUDA driver asks the loader for it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // Threads and exit handlers of this library outlive a dlclose.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}

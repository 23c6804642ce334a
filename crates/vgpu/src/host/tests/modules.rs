//! Modules and their functions.

use super::*;

fn load_error(text: &str) -> Error {
    machine_of(config()).load(0, text).unwrap_err()
}

#[test]
fn variables_have_their_values() {
    let (machine, module) = machine();
    let (numbers, bytes) = module.global("numbers").unwrap();
    assert_eq!(bytes, 16);
    assert_eq!(read_words(&machine, numbers, 4), [1, 2, 3, 0]);
    let (pointer, _) = module.global("pointer").unwrap();
    let mut word = [0; 8];
    machine.read(pointer, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), numbers + 4);
    let (factor, _) = module.global("factor").unwrap();
    assert_eq!(read_words(&machine, factor, 1), [5]);
    assert_eq!(module.globals(), ["factor", "numbers", "pointer"]);
    let error = module.global("number").unwrap_err();
    assert_eq!(
        error.to_string(),
        "variable `number` is not in the module; it has factor, numbers, pointer"
    );
    // The host may write them, and kernels see it.
    machine.write(numbers, &[9, 0, 0, 0]).unwrap();
    let out = machine.alloc(0, 16).unwrap();
    let function = module.function("next").unwrap();
    let config = LaunchConfig::new([1, 1, 1], [4, 1, 1]);
    let stream = machine.default_stream(0).unwrap();
    machine
        .launch(
            stream,
            &function,
            &config,
            &params(&function, [out, numbers]),
        )
        .unwrap();
    assert_eq!(read_words(&machine, out, 4), [10, 3, 4, 1]);
}

#[test]
fn functions_tell_what_they_need() {
    let (_, module) = machine();
    let names: Vec<String> = module
        .functions()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    assert!(
        names.contains(&"store".to_owned()) && names.len() == 9,
        "{names:?}"
    );
    assert_eq!((module.version(), module.target()), ((8, 3), "sm_80"));
    let store = module.function("store").unwrap();
    let params: Vec<(&str, u32, u32)> = store
        .params()
        .iter()
        .map(|p| (&*p.name, p.offset, p.bytes))
        .collect();
    assert_eq!(params, [("out", 0, 8), ("value", 8, 4)]);
    let attributes = store.attributes();
    assert_eq!(
        (
            attributes.max_threads_per_block,
            attributes.ptx_version,
            attributes.binary_version
        ),
        (1024, 83, 90)
    );
    assert_eq!(attributes.const_bytes, 4);
    assert_eq!(attributes.max_dynamic_shared, 48 * 1024);
    assert_eq!(
        module
            .function("small")
            .unwrap()
            .attributes()
            .max_threads_per_block,
        64
    );
    let heavy = module.function("heavy").unwrap().attributes();
    assert_eq!((heavy.registers, heavy.max_threads_per_block), (255, 256));
    // What is set about one is set about all of the same kernel.
    store.set_max_dynamic_shared(100_000).unwrap();
    let again = module.function("store").unwrap();
    assert_eq!(again.attributes().max_dynamic_shared, 100_000);
    assert!(store.set_max_dynamic_shared(227 * 1024 + 1).is_err());
    assert!(
        module
            .function("stores")
            .unwrap_err()
            .to_string()
            .contains("await")
    );
}

#[test]
fn what_cannot_be_loaded_says_where() {
    let error = load_error(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n  frobnicate.u32;\n}\n",
    );
    assert!(
        matches!(&error, Error::Load(error) if error.line == 6),
        "{error}"
    );
    let error = load_error(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k( {}");
    assert!(
        matches!(&error, Error::Syntax(error) if error.line == 4),
        "{error}"
    );
    let error = load_error(".version 8.7\n.target sm_100a\n.address_size 64\n");
    assert_eq!(
        error.to_string(),
        "the module is for sm_100a, which does not run on sm_90a"
    );
    let machine = machine_of(config());
    let cubin = machine.load_bytes(0, b"\x7fELF\x02\x01\x01\0").unwrap_err();
    assert!(cubin.to_string().contains("a cubin"), "{cubin}");
    let fatbin = machine
        .load_bytes(0, &[0x50, 0xed, 0x55, 0xba, 1, 0])
        .unwrap_err();
    assert!(fatbin.to_string().contains("a fatbin"), "{fatbin}");
    assert!(matches!(
        machine.load_bytes(0, b"\0"),
        Err(Error::NotPtx(_))
    ));
    let mut text = KERNELS.as_bytes().to_vec();
    text.push(0);
    machine.load_bytes(0, &text).unwrap();
    let header = ".version 8.0\n.target sm_80\n.address_size 64\n";
    for (text, says) in [
        (".extern .global .u32 other;\n", "defined in no module"),
        (".global .u64 p = other;\n", "which is no .global"),
        (".const .b8 c[70000];\n", "constant memory"),
        (
            ".entry k() { .shared .b8 s[50000]; .reg .b32 %r; mov.u32 %r, s; ret; }\n",
            "50000 bytes",
        ),
    ] {
        let error = load_error(&format!("{header}{text}"));
        assert!(error.to_string().contains(says), "{text}: {error}");
    }
    // Nothing is left of a module that could not be loaded.
    let machine = machine_of(config());
    let text = format!("{header}.global .b8 big[4096];\n.entry k() {{ nonsense; }}\n");
    assert!(machine.load(0, &text).is_err());
    assert_eq!(machine.mem_info(0).unwrap().free, 1 << 24);
}

#[test]
fn an_unloaded_module_is_gone() {
    let (machine, module) = machine();
    let (numbers, _) = module.global("numbers").unwrap();
    machine.unload(&module).unwrap();
    assert!(machine.unload(&module).is_err());
    assert!(machine.range_of(numbers).is_err());
    let nothing = module.function("nothing").unwrap();
    let stream = machine.default_stream(0).unwrap();
    let error = machine
        .launch(stream, &nothing, &LaunchConfig::new([1; 3], [1; 3]), &[])
        .unwrap_err();
    assert!(matches!(error, Error::InvalidHandle(_)));
    assert_eq!(machine.check_leaks(), []);
    let other = machine_of(config());
    let module = other.load(0, KERNELS).unwrap();
    let nothing = module.function("nothing").unwrap();
    let error = machine
        .launch(stream, &nothing, &LaunchConfig::new([1; 3], [1; 3]), &[])
        .unwrap_err();
    assert!(error.to_string().contains("another machine"));
}

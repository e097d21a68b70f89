#![no_main]

libfuzzer_sys::fuzz_target!(init: rpc_fuzz::write_seeds("frames"), |data: &[u8]| rpc_core::__fuzz::frames(data));

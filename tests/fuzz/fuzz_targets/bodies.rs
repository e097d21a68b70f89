#![no_main]

libfuzzer_sys::fuzz_target!(init: rpc_fuzz::write_seeds("bodies"), |data: &[u8]| rpc_core::__fuzz::bodies(data));

#[automatically_derived]
impl my::rpc::ServiceError for StockError {
    const CODES: &'static [&'static ::core::primitive::str] = &[
        "too_few",
        "stocktaking",
        "busy",
    ];
    fn code(&self) -> &'static ::core::primitive::str {
        match self {
            Self::TooFew { .. } => "too_few",
            Self::Counting { .. } => "stocktaking",
            Self::Busy { .. } => "busy",
        }
    }
    fn is_retryable(&self) -> ::core::primitive::bool {
        ::core::matches!(self, Self::Counting { .. } | Self::Busy { .. })
    }
    fn retry_after(&self) -> ::core::option::Option<::core::time::Duration> {
        match self {
            Self::Counting { .. } => {
                ::core::option::Option::Some(
                    ::core::time::Duration::from_millis(2000u64),
                )
            }
            _ => ::core::option::Option::None,
        }
    }
}
const _: () = ::core::assert!(
    ! my::rpc::__private::is_code_of_framework("too_few"),
    "`too_few` is a code of the framework's own errors: write another one, `#[rpc(code = \"…\")]`"
);
const _: () = ::core::assert!(
    ! my::rpc::__private::is_code_of_framework("stocktaking"),
    "`stocktaking` is a code of the framework's own errors: write another one, `#[rpc(code = \"…\")]`"
);
const _: () = ::core::assert!(
    ! my::rpc::__private::is_code_of_framework("busy"),
    "`busy` is a code of the framework's own errors: write another one, `#[rpc(code = \"…\")]`"
);

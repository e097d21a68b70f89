//! Replies as a store keeps them.
//!
//! Pure. The store does not look into a record. A worker of another version may read it, so it begins with its own version:
//!
//! ```text
//!  version  kind  then, by kind
//!  1        0     nothing: a one-way request
//!  1        1     codec, body                        the result
//!  1        2     codec, body                        the service's error
//!  1        3     codec, retry-after in ms (8, all ones: none), code (length in 4 bytes, text), message (the same), body
//!  1        4     nothing: executed, but its answer was too large to be kept
//! ```

use std::time::Duration;

use bytes::Bytes;

use crate::{
    call_error::ErrorDetails,
    codec::Codec,
    envelope::Code,
    worker::dispatch::{Answer, Response},
};

/// The record of a final reply; `None` of one that is not.
pub(super) fn encode(response: &Response, limit_bytes: usize) -> Option<Bytes> {
    if !response.is_final() {
        return None;
    }
    if response.body_bytes() > limit_bytes {
        return Some(Bytes::from_static(&[VERSION, TOO_LARGE]));
    }
    let mut record = Vec::with_capacity(response.body_bytes() + 32);
    record.push(VERSION);
    match response.answer() {
        None => record.push(NOTHING),
        Some(Answer::Ok(codec, body)) => put(&mut record, &[OK, codec_number(*codec)?], body),
        Some(Answer::ServiceError(codec, body)) => put(&mut record, &[ERROR, codec_number(*codec)?], body),
        Some(Answer::DetailedError(error)) => {
            let (codec, body, details) = &**error;
            record.extend_from_slice(&[DETAILED_ERROR, codec_number(*codec)?]);
            let ms = details.retry_after.map_or(u64::MAX, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            record.extend_from_slice(&ms.to_be_bytes());
            for text in [&details.code, &details.message] {
                put(&mut record, &u32::try_from(text.len()).ok()?.to_be_bytes(), text.as_bytes());
            }
            record.extend_from_slice(body);
        }
        Some(_) => return None,
    }
    Some(record.into())
}

fn put(record: &mut Vec<u8>, before: &[u8], text: &[u8]) {
    record.extend_from_slice(before);
    record.extend_from_slice(text);
}

/// The reply that a record keeps.
pub(super) fn decode(record: &[u8]) -> Response {
    read(record).unwrap_or_else(|| {
        // Not executed again: it was, by the worker that wrote the record.
        Response::failed(Code::Internal, "executed before; this worker cannot read the answer that the store has kept")
    })
}

fn read(record: &[u8]) -> Option<Response> {
    let (&[VERSION, kind], rest) = record.split_first_chunk()? else { return None };
    let too_large = "executed before; its answer was too large to be kept";
    Some(match kind {
        NOTHING => Response::NONE,
        OK => {
            let (&codec, body) = rest.split_first()?;
            Answer::Ok(codec_of(codec)?, body.to_vec()).into()
        }
        ERROR => {
            let (&codec, body) = rest.split_first()?;
            Answer::ServiceError(codec_of(codec)?, body.to_vec()).into()
        }
        DETAILED_ERROR => {
            let (&codec, rest) = rest.split_first()?;
            let (ms, rest) = rest.split_first_chunk()?;
            let (code, rest) = text(rest)?;
            let (message, body) = text(rest)?;
            let retry_after = Some(u64::from_be_bytes(*ms)).filter(|ms| *ms != u64::MAX).map(Duration::from_millis);
            let details = ErrorDetails { retry_after, ..ErrorDetails::new(code, message) };
            Answer::DetailedError(Box::new((codec_of(codec)?, body.to_vec(), details))).into()
        }
        TOO_LARGE => Response::failed(Code::PayloadTooLarge, too_large),
        _ => return None,
    })
}

fn text(record: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = record.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
    Some((str::from_utf8(text).ok()?, rest))
}

fn codec_number(codec: Codec) -> Option<u8> {
    CODECS.iter().position(|known| *known == codec)?.try_into().ok()
}

fn codec_of(number: u8) -> Option<Codec> {
    CODECS.get(usize::from(number)).copied()
}

/// By their numbers, which never change.
const CODECS: [Codec; 3] = [Codec::MessagePack, Codec::Json, Codec::Text];

const VERSION: u8 = 1;
const NOTHING: u8 = 0;
const OK: u8 = 1;
const ERROR: u8 = 2;
const DETAILED_ERROR: u8 = 3;
const TOO_LARGE: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(response: &Response) -> Response {
        decode(&encode(response, 1_000).expect("it is final"))
    }

    fn body(response: Response) -> (Codec, Vec<u8>) {
        match response.into_answer() {
            Some(Answer::Ok(codec, body) | Answer::ServiceError(codec, body)) => (codec, body),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn final_replies_survive_the_round_trip() {
        assert!(round_trip(&Response::NONE).into_answer().is_none());
        for codec in CODECS {
            let ok: Response = Answer::Ok(codec, vec![1, 2, 3]).into();
            assert_eq!(round_trip(&ok).error_code(), None);
            assert_eq!(body(round_trip(&ok)), (codec, vec![1, 2, 3]));
            let error: Response = Answer::ServiceError(codec, Vec::new()).into();
            assert_eq!(round_trip(&error).error_code(), Some("service"));
            assert_eq!(body(round_trip(&error)), (codec, Vec::new()));
        }
        for retry_after in [None, Some(Duration::from_millis(1_500))] {
            let details = ErrorDetails { retry_after, ..ErrorDetails::new("too_few", "only 1 ‘left’") };
            let error = Answer::DetailedError(Box::new((Codec::Json, b"{}".to_vec(), details.clone()))).into();
            let Some(Answer::DetailedError(read)) = round_trip(&error).into_answer() else { panic!() };
            assert_eq!(*read, (Codec::Json, b"{}".to_vec(), details));
        }
    }

    #[test]
    fn what_is_not_final_is_not_kept() {
        for code in [Code::Internal, Code::Timeout, Code::Overloaded, Code::BadRequest, Code::Abandoned] {
            assert_eq!(encode(&Response::failed(code, ""), 1_000), None);
        }
        let retryable = ErrorDetails::new("busy", "").retryable(true);
        let error = Answer::DetailedError(Box::new((Codec::Json, Vec::new(), retryable))).into();
        assert_eq!(encode(&error, 1_000), None);
    }

    #[test]
    fn an_answer_that_is_too_large_leaves_a_mark() {
        let record = encode(&Response::ok_of(1_001), 1_000).unwrap();
        assert_eq!((record.len(), decode(&record).error_code()), (2, Some("payload_too_large")));
    }

    #[test]
    fn a_record_that_is_no_record_is_an_error_and_no_panic() {
        let details = ErrorDetails::new("too_few", "only 1 left");
        let error = Answer::DetailedError(Box::new((Codec::Json, Vec::new(), details))).into();
        let whole = encode(&error, 1_000).unwrap();
        for end in 0..whole.len() {
            assert_eq!(decode(&whole[..end]).error_code(), Some("internal"), "{end}");
        }
        for bad in [&[2, 0][..], &[1, 9], &[1, 1, 9], &[1, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]] {
            assert_eq!(decode(bad).error_code(), Some("internal"), "{bad:?}");
        }
    }
}

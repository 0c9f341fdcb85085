//! When a rate limited request may come back: pure parsers.
//!
//! `Retry-After` is seconds or a date by RFC 9110; registries written in Go also print durations (`880.092µs`), in the
//! header or in the text of the error.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// No wait is taken to be shorter: a hint of microseconds would make a busy loop.
const SHORTEST: Duration = Duration::from_millis(100);
/// No wait is taken to be longer: rate limit windows roll, and hints are often the whole window.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// What time it was where an answer came from, else what it is here: dates in an answer mean what they mean there, and
/// clocks disagree, by days sometimes.
pub(crate) fn time_there(headers: &HeaderMap) -> SystemTime {
    let date = headers.get(DATE).and_then(|value| httpdate::parse_http_date(value.to_str().ok()?).ok());
    date.unwrap_or_else(SystemTime::now)
}

/// The wait that an answer asks for, if it does, at the time `now`.
pub(crate) fn retry_after(headers: &HeaderMap, body: &[u8], now: SystemTime) -> Option<Duration> {
    let header = headers.get(RETRY_AFTER).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    header
        .and_then(|value| parse(value.trim(), now))
        .or_else(|| of_text(&String::from_utf8_lossy(body), now))
        .map(|wait| wait.clamp(SHORTEST, LONGEST))
}

/// `… retry-after: 880.092µs, allowed: 44000/minute`
fn of_text(text: &str, now: SystemTime) -> Option<Duration> {
    let lower = text.to_ascii_lowercase();
    let (_, hint) = lower.split_once("retry-after:")?;
    let hint = hint.trim_start();
    let end = hint.find(|character: char| character.is_whitespace() || ",;\"\\".contains(character));
    parse(&hint[..end.unwrap_or(hint.len())], now)
}

fn parse(value: &str, now: SystemTime) -> Option<Duration> {
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a long time in any case.
        return Some(value.parse().map_or(LONGEST, Duration::from_secs));
    }
    if let Ok(date) = httpdate::parse_http_date(value) {
        return Some(date.duration_since(now).unwrap_or_default());
    }
    parse_go_duration(value)
}

/// A duration as Go prints it: decimal numbers with units, such as `1h2m3.5s`.
fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let amount: f64 = rest[..number].parse().ok()?;
        rest = &rest[number..];
        let end = rest.find(|character: char| character.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += amount * unit;
        rest = &rest[end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_header(value: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_bytes(value.as_bytes()).unwrap())]);
        retry_after(&headers, b"", SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn every_spelling_is_read_and_clamped() {
        for (value, millis) in [
            ("7", Some(7_000)),
            ("0", Some(100)),
            ("99999999999999999999999", Some(900_000)),
            ("21600", Some(900_000)),
            ("Thu, 01 Jan 1970 00:00:30 GMT", Some(30_000)),
            ("880.092µs", Some(100)),
            ("1m1.5s", Some(61_500)),
            ("250ms", Some(250)),
            ("soon", None),
            ("-3", None),
            ("", None),
            ("1.2.3s", None),
            ("5x", None),
        ] {
            assert_eq!(of_header(value), millis.map(Duration::from_millis), "{value}");
        }
    }

    #[test]
    fn a_date_in_the_past_means_soon() {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, "Thu, 01 Jan 1970 00:00:00 GMT".parse().unwrap())]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        assert_eq!(retry_after(&headers, b"", now), Some(SHORTEST));
    }

    #[test]
    fn dates_are_compared_with_the_clock_of_whoever_says_them() {
        let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
        let here = SystemTime::now();
        for there in [here - day, here, here + day] {
            let date = |time| httpdate::fmt_http_date(time).parse().unwrap();
            let headers = HeaderMap::from_iter([(DATE, date(there)), (RETRY_AFTER, date(there + minute))]);
            assert_eq!(retry_after(&headers, b"", time_there(&headers)), Some(minute));
        }
        let undated = time_there(&HeaderMap::new());
        assert!(undated >= here && undated < here + minute);
    }

    #[test]
    fn the_text_of_the_error_is_the_second_source() {
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"Retry-After: 2.5s, allowed: 44000/minute"}]}"#;
        assert_eq!(retry_after(&HeaderMap::new(), body, SystemTime::now()), Some(Duration::from_millis(2_500)));
        let both = HeaderMap::from_iter([(RETRY_AFTER, "9".parse().unwrap())]);
        assert_eq!(retry_after(&both, body, SystemTime::now()), Some(Duration::from_secs(9)));
        assert_eq!(retry_after(&HeaderMap::new(), b"slow down", SystemTime::now()), None);
    }

    proptest! {
        #[test]
        fn any_text_yields_a_bounded_wait_or_none(text in ".{0,60}") {
            let body = format!("retry-after: {text}");
            if let Some(wait) = retry_after(&HeaderMap::new(), body.as_bytes(), SystemTime::now()) {
                prop_assert!((SHORTEST..=LONGEST).contains(&wait));
            }
        }

        #[test]
        fn a_go_duration_is_the_sum_of_its_parts(hours in 0_u32..99, minutes in 0_u32..60, millis in 0_u32..60_000) {
            let text = format!("{hours}h{minutes}m{}s", f64::from(millis) / 1000.0);
            let expected = f64::from(hours) * 3600.0 + f64::from(minutes) * 60.0 + f64::from(millis) / 1000.0;
            prop_assert!((parse_go_duration(&text).unwrap().as_secs_f64() - expected).abs() < 1e-6);
        }
    }
}

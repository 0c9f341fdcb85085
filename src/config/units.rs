//! Sizes and durations as people write them: a whole number and a unit.
//!
//! Texts with units instead of bare numbers, because templates print large numbers as `2.147483648e+11`, and because
//! nobody remembers whether a number means seconds or milliseconds.

use std::time::Duration;

use super::store::SizeLimit;

/// The longest duration accepted: ten years. Beyond it, adding one to a clock could overflow.
const MAX_DURATION: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// What [`duration`] accepts, for error messages.
pub(super) const DURATION: &str = "a duration such as `500ms`, `60s`, `5m`, `2h` or `7d`, at most `3650d`";

/// What [`size_limit`] accepts, for error messages.
pub(super) const SIZE: &str =
    "a size such as `512KiB`, `200GiB` or `1GB`, a whole number of bytes, or a share of the disk such as `5%`";

/// `500ms`, `60s`, `5m`, `2h`, `7d`, or `0`.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        "" if number == 0 => 1,
        _ => return None,
    };
    let duration = Duration::from_millis(number.checked_mul(milliseconds)?);
    (duration <= MAX_DURATION).then_some(duration)
}

/// `512KiB`, `200GiB`, `1GB`, `4096` (bytes), or `5%`.
pub(super) fn size_limit(text: &str) -> Option<SizeLimit> {
    match text.strip_suffix('%') {
        Some(percent) => percentage(percent.trim_end()).map(SizeLimit::Percent),
        None => bytes(text).map(SizeLimit::Bytes),
    }
}

/// `512KiB`, `200GiB`, `1GB` or `4096` (bytes).
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1000,
        "MB" => 1000_u64.pow(2),
        "GB" => 1000_u64.pow(3),
        "TB" => 1000_u64.pow(4),
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "PiB" => 1 << 50,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A share in hundredths, with decimals if need be. Checked by hand because `f64` also parses `inf`, `nan` and `1e1`.
fn percentage(text: &str) -> Option<f64> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent: f64 = text.parse().ok().filter(|_| is_decimal)?;
    (0.0..=100.0).contains(&percent).then_some(percent)
}

/// The number and the unit after it; a space may stand between them.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start_matches(' ')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        for (text, seconds) in [("60s", 60), ("5m", 300), ("2h", 7200), ("7d", 604_800), ("0", 0), ("0s", 0)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    }

    #[test]
    fn texts_that_are_no_duration_are_refused() {
        for text in ["", "5", "s", "-5s", "1.5h", "5 minutes", "5S", "3651d", "18446744073709551615d", "1h30m", "5sm"] {
            assert_eq!(duration(text), None, "{text:?} passed");
        }
    }

    #[test]
    fn sizes_are_bytes_or_shares() {
        assert_eq!(size_limit("512KiB"), Some(SizeLimit::Bytes(512 * 1024)));
        assert_eq!(size_limit("200GiB"), Some(SizeLimit::Bytes(200 << 30)));
        assert_eq!(size_limit("1GB"), Some(SizeLimit::Bytes(1_000_000_000)));
        assert_eq!(size_limit("4096"), Some(SizeLimit::Bytes(4096)));
        assert_eq!(size_limit("5%"), Some(SizeLimit::Percent(5.0)));
        assert_eq!(size_limit("0.5 %"), Some(SizeLimit::Percent(0.5)));
    }

    #[test]
    fn texts_that_are_no_size_are_refused() {
        for text in ["", "%", "101%", "-1%", "nan%", "inf%", "1e1%", "GiB", "1.5GiB", "1Gi", "-1", "20000000TiB", "1 2"]
        {
            assert_eq!(size_limit(text), None, "{text:?} passed");
        }
    }

    proptest! {
        #[test]
        fn whole_seconds_read_as_they_are_written(seconds in 0_u64..=MAX_DURATION.as_secs()) {
            prop_assert_eq!(duration(&format!("{seconds}s")), Some(Duration::from_secs(seconds)));
            prop_assert_eq!(duration(&format!("{}ms", seconds * 1000)), Some(Duration::from_secs(seconds)));
        }

        #[test]
        fn bytes_read_as_they_are_written(bytes in any::<u64>()) {
            prop_assert_eq!(size_limit(&bytes.to_string()), Some(SizeLimit::Bytes(bytes)));
            prop_assert_eq!(size_limit(&format!("{bytes}KiB")), bytes.checked_mul(1024).map(SizeLimit::Bytes));
        }

        #[test]
        fn a_printed_size_reads_as_the_same_size(bytes in any::<u64>(), shift in 0_u32..50) {
            let size = SizeLimit::Bytes(bytes >> shift << shift);
            prop_assert_eq!(size_limit(&size.to_string()), Some(size));
        }

        #[test]
        fn shares_never_leave_the_disk(text in "[0-9.]{0,5}%") {
            if let Some(SizeLimit::Percent(percent)) = size_limit(&text) {
                prop_assert!((0.0..=100.0).contains(&percent));
            }
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC{0,12}") {
            let _ = (duration(&text), size_limit(&text));
        }
    }
}

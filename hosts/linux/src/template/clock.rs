//! The date that a template may ask for.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A second of UTC. Templates want a date; the time zone of the machine is not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    seconds: u64,
}

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

impl Moment {
    /// Seconds since 1970.
    pub const fn since_epoch(seconds: u64) -> Self {
        Self { seconds }
    }

    /// The clock's.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::since_epoch(since.map_or(0, |d| d.as_secs()))
    }

    /// Python's `strftime` in the C locale, for `%Y %y %m %B %b %d %e %j %A %a %H %I %M %S %p %F %T %%`; other
    /// directives stay as they are.
    ///
    /// ```
    /// use pleach_linux::template::Moment;
    /// assert_eq!(Moment::since_epoch(951_782_400).strftime("%a %d %b %Y"), "Tue 29 Feb 2000");
    /// ```
    pub fn strftime(&self, format: &str) -> String {
        let (day, time) = (self.seconds / 86_400, self.seconds % 86_400);
        let (year, month, date) = civil(day);
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let month_name = MONTHS[month as usize - 1];
        let day_name = DAYS[(day as usize + 4) % 7];
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let _ = match chars.next() {
                Some('Y') => write!(out, "{year}"),
                Some('y') => write!(out, "{:02}", year % 100),
                Some('m') => write!(out, "{month:02}"),
                Some('B') => write!(out, "{month_name}"),
                Some('b') => write!(out, "{}", &month_name[..3]),
                Some('d') => write!(out, "{date:02}"),
                Some('e') => write!(out, "{date:2}"),
                Some('j') => write!(out, "{:03}", day + 1 - days_before(year)),
                Some('A') => write!(out, "{day_name}"),
                Some('a') => write!(out, "{}", &day_name[..3]),
                Some('H') => write!(out, "{hour:02}"),
                Some('I') => write!(out, "{:02}", (hour + 11) % 12 + 1),
                Some('M') => write!(out, "{minute:02}"),
                Some('S') => write!(out, "{second:02}"),
                Some('p') => write!(out, "{}", if hour < 12 { "AM" } else { "PM" }),
                Some('F') => write!(out, "{year}-{month:02}-{date:02}"),
                Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
                Some('%') => write!(out, "%"),
                Some(other) => write!(out, "%{other}"),
                None => write!(out, "%"),
            };
        }
        out
    }
}

/// Days from 1970 to the first of January of a year from 1970 on.
fn days_before(year: u64) -> u64 {
    let y = year - 1;
    y * 365 + y / 4 - y / 100 + y / 400 - 719_162
}

/// Year, month and date of a day since 1970.
fn civil(day: u64) -> (u64, u64, u64) {
    // The year of 365.2425 days is right to one year; the loop settles it.
    let mut year = 1970 + day * 400 / 146_097;
    while days_before(year) > day {
        year -= 1;
    }
    while days_before(year + 1) <= day {
        year += 1;
    }
    let leap = days_before(year + 1) - days_before(year) == 366;
    let mut date = day - days_before(year);
    let lengths = [
        31,
        if leap { 29 } else { 28 },
        31,
        30,
        31,
        30,
        31,
        31,
        30,
        31,
        30,
        31,
    ];
    let mut month = 1;
    for length in lengths {
        if date < length {
            break;
        }
        date -= length;
        month += 1;
    }
    (year, month, date + 1)
}

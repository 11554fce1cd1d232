//! What `doctor` finds: how bad, of whom, and what to do about it.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing is wrong; it is worth knowing.
    Note,
    /// It works, and will not for ever.
    Warning,
    /// Something is broken.
    Error,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Stable: lower case, words joined by `-`.
    pub code: &'static str,
    /// The member that it is about.
    pub member: Option<u64>,
    /// What it is, and what to do.
    pub text: String,
}

impl Finding {
    /// A finding about no member in particular.
    pub fn new(severity: Severity, code: &'static str, text: impl Into<String>) -> Self {
        Self { severity, code, member: None, text: text.into() }
    }

    /// It is about this member.
    #[must_use]
    pub const fn of(mut self, member: u64) -> Self {
        self.member = Some(member);
        self
    }
}

/// Whether there is nothing worse than a note.
#[must_use]
pub fn is_sound(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.severity == Severity::Note)
}

/// The findings, the worst first, one a line.
#[must_use]
pub fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut text = String::new();
    for finding in sorted {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        let whom = finding.member.map(|member| format!("member {member}: ")).unwrap_or_default();
        text.push_str(&format!("{severity:<7}  {}: {whom}{}\n", finding.code, finding.text));
    }
    text
}

/// Bytes as people write them.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut below = bytes;
    while below >= 1024 * 1024 && unit + 1 < UNITS.len() {
        below /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", below / 1024, below % 1024 * 10 / 1024, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_notes_leave_things_sound() {
        let note = Finding::new(Severity::Note, "learner", "it has no vote").of(4);
        let error = Finding::new(Severity::Error, "no-leader", "no member leads");
        assert!(is_sound(std::slice::from_ref(&note)) && !is_sound(&[note.clone(), error.clone()]));
        assert_eq!(
            text(&[note, error]),
            "error    no-leader: no member leads\nnote     learner: member 4: it has no vote\n"
        );
    }

    #[test]
    fn sizes_have_one_decimal() {
        let sizes = [0, 1_023, 1_024, 1_536, (1 << 20) - 1, 1 << 20, 5 << 30, 1 << 50].map(size);
        let told = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "5.0 GiB", "1024.0 TiB"];
        assert_eq!(sizes, told);
    }
}

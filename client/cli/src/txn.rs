//! `txn`: operations from a file, one a line, as one transaction.

use std::io::Read;
use std::path::Path;

use conclave_client::{Client, Error, Outcome, Refusal, limits};
use conclave_script::Script;
use serde_json::{Value, json};

use crate::acl::dialect;
use crate::args;
use crate::failure::{DONE, Failure, REFUSED, While};
use crate::out::{Out, plural};

pub(crate) async fn run(client: &Client, args: args::Txn, out: Out) -> Result<u8, Failure> {
    let (name, text) = read(&args)?;
    let dialect = dialect(client);
    let script = dialect.script(&text).map_err(|error| {
        let error = error.to_string();
        let stop = if error.ends_with('?') { "" } else { "." };
        let help = "`conclave txn --help` shows what lines look like.";
        Failure::Refused { code: "bad-line", text: format!("{name}, {error}{stop} Nothing was changed. {help}") }
    })?;
    let Script { steps, lines } = script;
    if steps.is_empty() {
        let text = format!("{name} has no operation in it. Nothing was changed.");
        return Err(Failure::Refused { code: "bad-line", text });
    }
    let mut multi = client.multi(steps);
    if let Some(fence) = args.fence {
        multi = multi.fenced(fence);
    }
    let values = multi.await.map_err(|error| told(error, &name, &lines))?;
    let steps: Vec<Value> = values.iter().map(|value| dialect.value(value)).collect();
    let count = steps.len();
    out.show(&json!({ "steps": steps }), |_| {
        format!("done: {count} operation{} in one transaction", plural(count as u64))
    })?;
    Ok(DONE)
}

fn read(args: &args::Txn) -> Result<(String, String), Failure> {
    // More than fits a frame is refused anyway: an endless stdin does not fill the memory.
    const MOST: u64 = 16 * limits::FRAME_BYTES as u64;
    let piped = args.file.as_os_str() == "-";
    let (name, read) = if piped {
        ("stdin".to_owned(), text(std::io::stdin().lock(), MOST))
    } else {
        let file = std::fs::File::open(&args.file).map_err(|error| error.to_string());
        (args.file.display().to_string(), file.and_then(|file| text(file, MOST)))
    };
    let text = read.map_err(|why| Failure::file(Path::new(&name), why))?;
    Ok((name, text))
}

/// All of an input of at most so many bytes, without the mark that some editors begin a file with; or what is wrong with
/// it. Of one that is longer, no part is a transaction.
fn text(input: impl Read, most: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = input.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if read as u64 > most {
        return Err(format!("it is longer than {most} bytes: more than one transaction can be"));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("it is not UTF-8: see byte {}", error.utf8_error().valid_up_to()))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The failure, with the line that was refused.
fn told(error: Error, name: &str, lines: &[usize]) -> Failure {
    match &error {
        Error::Refused(Refusal::Step { step, cause }) => {
            let line = usize::try_from(*step).ok().and_then(|step| lines.get(step));
            let at = line.map_or_else(|| format!("operation {step}"), |line| format!("line {line}"));
            Failure::Exact {
                code: cause.code(),
                exit: REFUSED,
                outcome: Outcome::NotApplied,
                text: format!(
                    "refused: {}: {name}, {at}: {cause}. Nothing was changed by any of the {} operations.",
                    cause.code(),
                    lines.len()
                ),
            }
        }
        _ => error.writing(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_is_too_long_or_no_text_is_refused_whole() {
        assert_eq!(text(&b"12345678"[..], 8).unwrap(), "12345678");
        assert_eq!(
            text(&b"123456789"[..], 8).unwrap_err(),
            "it is longer than 8 bytes: more than one transaction can be"
        );
        assert_eq!(text(&b"ab\xff"[..], 8).unwrap_err(), "it is not UTF-8: see byte 2");
        assert_eq!(text("\u{feff}{}".as_bytes(), 8).unwrap(), "{}");
    }

    #[test]
    fn the_line_that_was_refused_is_named() {
        let cause = Refusal::BadVersion { path: conclave_client::Path::parse("/a").unwrap(), actual: 1, expected: 0 };
        let refused = |step| Error::Refused(Refusal::Step { step, cause: Box::new(cause.clone()) });
        let failure = told(refused(1), "deploy.txn", &[2, 7]);
        assert_eq!(
            failure.message(),
            "refused: bad-version: deploy.txn, line 7: /a is at version 1, you said 0. Nothing was changed by any of the \
             2 operations."
        );
        assert_eq!((failure.code(), failure.exit(), failure.outcome()), ("bad-version", 1, Outcome::NotApplied));
        assert!(told(refused(9), "x", &[1]).message().contains("operation 9"));
        let other = Error::Refused(Refusal::BadRequest { why: "no".into() });
        assert!(told(other, "x", &[1]).message().contains("refused: bad-request: no. Nothing was changed."));
    }
}

//! `session`: the open sessions, one of them with what it owns, and the end of one.

use conclave_client::{Client, Error, Path, Refusal, SessionId, SessionInfo};
use conclave_script::Dialect;
use serde_json::{Value, json};

use crate::acl::dialect;
use crate::args;
use crate::failure::{DONE, Failure, While};
use crate::out::{Out, table};

pub(crate) async fn run(client: &Client, command: &args::Session, out: Out) -> Result<u8, Failure> {
    match command {
        args::Session::List(_) => {
            let sessions = client.sessions().await.reading()?;
            let dialect = dialect(client);
            let shown: Vec<Value> = sessions.iter().map(|info| dialect.session(info)).collect();
            out.show(&json!({ "sessions": shown }), |_| rows(&dialect, &sessions))?;
        }
        args::Session::Show(args) => show(client, SessionId(args.session), out).await?,
        args::Session::Kill(args) => {
            client.end_session(SessionId(args.session)).await.map_err(|error| match error {
                Error::Refused(Refusal::SessionOver { session }) => {
                    let text = format!("session {session} is over already. Nothing was changed.");
                    Failure::Refused { code: "session-over", text }
                }
                other => other.writing(),
            })?;
            let ended = json!({ "session": args.session, "ended": true });
            out.show(&ended, |_| format!("ended session {}", args.session))?;
        }
    }
    Ok(DONE)
}

async fn show(client: &Client, session: SessionId, out: Out) -> Result<(), Failure> {
    let found = client.sessions().await.reading()?.into_iter().find(|info| info.session == session);
    let Some(info) = found else {
        let text = format!(
            "there is no session {session}, or it is somebody else's. Ended sessions leave nothing; \
             `conclave session list` prints the open ones."
        );
        return Err(Failure::Refused { code: "no-session", text });
    };
    let paths = client.owned(session).await.reading()?;
    let dialect = dialect(client);
    let mut shown = dialect.session(&info);
    shown["paths"] = json!(paths);
    out.show(&shown, |_| text(&dialect, &info, &paths))
}

fn rows(dialect: &Dialect, sessions: &[SessionInfo]) -> String {
    let row = |info: &SessionInfo| {
        let timeout = format!("{} s", info.timeout_ms / 1000);
        let numbers = [info.session.0, info.ephemerals, info.writes].map(|number| number.to_string());
        let [session, ephemerals, writes] = numbers;
        vec![session, timeout, ephemerals, writes, dialect.short(&info.principal).to_owned()]
    };
    let rows: Vec<Vec<String>> = sessions.iter().map(row).collect();
    let header = ["SESSION", "TIMEOUT", "EPHEMERALS", "WRITES", "PRINCIPAL"];
    table(&header, &[true, true, true, true, false], &rows)
}

fn text(dialect: &Dialect, info: &SessionInfo, paths: &[Path]) -> String {
    let SessionInfo { session, principal, timeout_ms, ephemerals, writes, unacknowledged } = info;
    let mut text = format!(
        "session     {session}\nprincipal   {}\ntimeout     {timeout_ms} ms\nwrites      {writes}, {unacknowledged} \
         unacknowledged\nephemerals  {ephemerals}\n",
        dialect.short(principal)
    );
    for path in paths {
        text.push_str(&format!("  {path}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SessionInfo {
        SessionInfo {
            session: SessionId(17),
            principal: "spiffe://example/client/alice".into(),
            timeout_ms: 10_000,
            ephemerals: 1,
            writes: 4,
            unacknowledged: 2,
        }
    }

    #[test]
    fn sessions_are_a_table() {
        let dialect = Dialect::of("spiffe://example/client/ci");
        assert_eq!(
            rows(&dialect, &[sample()]),
            "SESSION  TIMEOUT  EPHEMERALS  WRITES  PRINCIPAL\n     17     10 s           1       4  client/alice\n"
        );
    }

    #[test]
    fn one_is_shown_with_what_it_owns() {
        let dialect = Dialect::of("spiffe://example/client/ci");
        let paths = ["/members/a".parse().unwrap()];
        assert_eq!(
            text(&dialect, &sample(), &paths),
            "session     17\nprincipal   client/alice\ntimeout     10000 ms\nwrites      4, 2 unacknowledged\n\
             ephemerals  1\n  /members/a\n"
        );
    }
}

//! Children of every kind under a lock of cardboard.

use std::sync::Mutex;
use std::time::Instant;

use super::*;

/// An award that changes as the test says.
struct Cardboard(Mutex<(Standing, Instant)>);

impl Cardboard {
    fn new(standing: Standing, left: Duration) -> Self {
        Self(Mutex::new((standing, Instant::now() + left)))
    }

    fn becomes(&self, standing: Standing, left: Duration) {
        *self.0.lock().unwrap() = (standing, Instant::now() + left);
    }
}

impl Award for Cardboard {
    fn standing(&self) -> Standing {
        self.0.lock().unwrap().0
    }

    fn time_left(&self) -> Duration {
        self.0.lock().unwrap().1.saturating_duration_since(Instant::now())
    }
}

const LONG: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_millis(400);

fn shell(script: &str) -> Vec<OsString> {
    ["sh", "-c", script].map(OsString::from).to_vec()
}

async fn under(award: &Cardboard, command: &[OsString], variables: &[(&str, String)]) -> std::io::Result<Ended> {
    run(award, command, variables, GRACE, &mut Signals::listen().unwrap()).await
}

/// Waits for a file that a child writes.
async fn appears(path: &std::path::Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match std::fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text.trim().to_owned(),
            _ => assert!(Instant::now() < deadline, "{} did not appear", path.display()),
        }
        // tidy: allow sleep, this is how others wait for a file
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in parentheses; Z is one that nobody has waited for yet.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

#[tokio::test]
async fn the_exit_code_is_the_commands() {
    let award = Cardboard::new(Standing::Held, LONG);
    assert_eq!(under(&award, &shell("exit 0"), &[]).await.unwrap(), Ended::Exited(0));
    assert_eq!(under(&award, &shell("exit 7"), &[]).await.unwrap(), Ended::Exited(7));
    assert_eq!(under(&award, &shell("kill -KILL $$"), &[]).await.unwrap(), Ended::Exited(137));
}

#[tokio::test]
async fn what_cannot_be_run_is_told() {
    let award = Cardboard::new(Standing::Held, LONG);
    let kind = async |command: &str| under(&award, &[command.into()], &[]).await.unwrap_err().kind();
    assert_eq!(kind("no-such-command-anywhere").await, std::io::ErrorKind::NotFound);
    assert_eq!(kind("/").await, std::io::ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn our_variables_reach_the_command() {
    let award = Cardboard::new(Standing::Held, LONG);
    let variables = [("CONCLAVE_FENCE", "/m/holder@7".to_owned()), ("PATH", "/bin:/usr/bin".to_owned())];
    let command = shell("test \"$CONCLAVE_FENCE\" = /m/holder@7 && test \"$PATH\" = /bin:/usr/bin");
    assert_eq!(under(&award, &command, &variables).await.unwrap(), Ended::Exited(0));
}

#[tokio::test]
async fn the_command_leads_a_group_of_its_own() {
    let award = Cardboard::new(Standing::Held, LONG);
    let command = shell("test \"$(cut -d ' ' -f 5 /proc/$$/stat)\" = $$");
    assert_eq!(under(&award, &command, &[]).await.unwrap(), Ended::Exited(0));
}

#[tokio::test]
async fn a_lost_award_kills_the_whole_group_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let award = Cardboard::new(Standing::Held, LONG);
    let command = shell(&format!("trap '' TERM; sleep 600 & echo $$ $! > {}; wait", pids.display()));
    let (ended, text) = tokio::join!(under(&award, &command, &[]), async {
        let text = appears(&pids).await;
        award.becomes(Standing::Lost, Duration::ZERO);
        text
    });
    assert_eq!(ended.unwrap(), Ended::Lost);
    // The grandchild is dead too; init may take a moment to bury it, which `runs` does not count.
    for pid in text.split(' ') {
        let deadline = Instant::now() + Duration::from_secs(10);
        while runs(pid) {
            assert!(Instant::now() < deadline, "{pid} runs on");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn an_uncertain_award_lets_the_command_end_in_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, told) = (dir.path().join("ready"), dir.path().join("told"));
    let award = Cardboard::new(Standing::Held, LONG);
    let script = format!(
        "trap 'echo told > {}; exit 0' TERM; echo ready > {}; while :; do sleep 0.02; done",
        told.display(),
        ready.display()
    );
    let command = shell(&script);
    let (ended, ()) = tokio::join!(under(&award, &command, &[]), async {
        appears(&ready).await;
        // Longer than the grace: only when the rest is as short as it, the command is told.
        award.becomes(Standing::Uncertain, GRACE + Duration::from_millis(200));
    });
    assert_eq!(ended.unwrap(), Ended::Lost);
    assert_eq!(appears(&told).await, "told");
    assert_eq!(award.standing(), Standing::Uncertain);
    assert!(award.time_left() > Duration::ZERO, "it was told in time");
}

#[tokio::test]
async fn who_does_not_listen_is_dead_when_the_award_ends() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let award = Cardboard::new(Standing::Held, LONG);
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.02; done", ready.display());
    let command = shell(&script);
    let (ended, pid) = tokio::join!(under(&award, &command, &[]), async {
        let pid = appears(&ready).await;
        award.becomes(Standing::Uncertain, Duration::from_millis(200));
        pid
    });
    assert_eq!(ended.unwrap(), Ended::Lost);
    assert!(!runs(&pid));
}

#[tokio::test]
async fn a_command_that_ended_after_the_loss_does_not_count_as_done() {
    let award = Cardboard::new(Standing::Held, Duration::from_secs(5));
    let judge = Judge::new(GRACE);
    let group = Group { pid: None };
    assert_eq!(ended(ExitStatus::from_raw(0), &award, &judge, group), Ended::Exited(0));
    award.becomes(Standing::Lost, Duration::ZERO);
    assert_eq!(ended(ExitStatus::from_raw(0), &award, &judge, group), Ended::Lost);
}

#[tokio::test]
async fn a_command_that_is_stopped_still_hears_that_it_must_end() {
    let dir = tempfile::tempdir().unwrap();
    let (ready, told) = (dir.path().join("ready"), dir.path().join("told"));
    let award = Cardboard::new(Standing::Held, LONG);
    let script =
        format!("trap 'echo told > {}; exit 0' TERM; echo ready > {}; kill -STOP $$", told.display(), ready.display());
    let command = shell(&script);
    let (ended, ()) = tokio::join!(under(&award, &command, &[]), async {
        appears(&ready).await;
        award.becomes(Standing::Uncertain, GRACE);
    });
    assert_eq!(ended.unwrap(), Ended::Lost);
    assert_eq!(appears(&told).await, "told");
}

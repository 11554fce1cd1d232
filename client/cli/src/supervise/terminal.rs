//! The terminal, for a child that reads it: a group in the background that does is stopped by the system.

use std::io::{stdin, stdout};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, getpid, kill_process_group, waitid};
use rustix::termios::{isatty, tcgetpgrp, tcsetpgrp};

/// Makes the child's group the one that the terminal belongs to: it can read it, and Ctrl-C goes to it. Only where we
/// lead a job of an interactive shell, which takes its terminal back at our end: giving it back ourselves, from the
/// background, needs signals blocked in ways that safe code has no words for. So not in scripts and pipelines, which
/// would be left without it.
pub(super) fn hand_over(group: Pid) -> bool {
    let ours = isatty(stdin())
        && isatty(stdout())
        && getpgrp() == getpid()
        && tcgetpgrp(stdin()).is_ok_and(|foreground| foreground == getpgrp());
    ours && tcsetpgrp(stdin(), group).is_ok()
}

/// Continues a child that was stopped, by Ctrl-Z or because it read before the terminal was its own: nobody else could,
/// as its stop tells the shell nothing, and a lock should not be held by what does not run.
pub(super) fn keep_going(group: Pid) {
    if was_stopped(group) {
        // It fails when the group is gone.
        let _ = kill_process_group(group, Signal::CONT);
    }
}

/// Was the child stopped since this was last asked?
pub(super) fn was_stopped(child: Pid) -> bool {
    matches!(waitid(WaitId::Pid(child), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG), Ok(Some(_)))
}

//! What happens to one node, and how it is written down.
//!
//! A script is a few lines: which node, then one step a line. `#` begins a remark; an empty line ends
//! the script.
//!
//! ```text
//! node small
//! call bootstrap 0
//! answer full
//! from 3 d1:ad2:id<I>9:info_hash20:aaaaaaaaaaaaaaaaaaaae1:q9:get_peers1:t2:aa1:y1:qe
//! from 3 x60 d1:ad2:id<I>e1:q4:ping1:t2:aa1:y1:qe
//! pass 1500
//! ```

use std::fmt;

use crate::profile::Profile;
use crate::template;

/// Steps of a script.
pub const STEPS_MAX: usize = 60;

/// What the owner of the node asks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Names a speaker as bootstrap node.
    Bootstrap,
    /// Tells of a speaker that may be a node.
    AddNode,
    /// Looks for peers.
    FindPeers,
    /// Announces as a peer.
    Announce,
    /// Announces as a seed.
    Seed,
    /// Keeps a torrent announced.
    KeepAnnounced,
    /// Looks for nodes.
    FindNode,
    /// Pings a speaker.
    Ping,
    /// Counts seeds and peers.
    Scrape,
    /// Samples torrents.
    Sample,
    /// Looks for an item.
    Get,
    /// Stores an item.
    Put,
    /// Stores an item and keeps it there.
    Keep,
    /// Keeps an item no longer.
    Drop,
    /// Names us as a peer no longer.
    Withdraw,
    /// Ends a lookup.
    Cancel,
    /// Wakes the node although nothing is due.
    Wake,
    /// Starts a new node from what this one knows.
    Restart,
}

impl Call {
    /// Each of them, with its name in a script.
    pub const ALL: [(Self, &'static str); 18] = [
        (Self::Bootstrap, "bootstrap"),
        (Self::AddNode, "add-node"),
        (Self::FindPeers, "find-peers"),
        (Self::Announce, "announce"),
        (Self::Seed, "seed"),
        (Self::KeepAnnounced, "keep-announced"),
        (Self::FindNode, "find-node"),
        (Self::Ping, "ping"),
        (Self::Scrape, "scrape"),
        (Self::Sample, "sample"),
        (Self::Get, "get"),
        (Self::Put, "put"),
        (Self::Keep, "keep"),
        (Self::Drop, "drop"),
        (Self::Withdraw, "withdraw"),
        (Self::Cancel, "cancel"),
        (Self::Wake, "wake"),
        (Self::Restart, "restart"),
    ];
}

/// How the nodes of the cast answer what they were asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// With everything there is.
    Full,
    /// With an id and nothing else.
    Bare,
    /// With names, peers and items that are not what they should be.
    Lies,
    /// With another id than their own.
    OtherId,
    /// With an error.
    Error,
    /// Fully, and they see the node at another address (BEP 42).
    Moved,
}

impl Style {
    /// Each of them, with its name in a script.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Full, "full"),
        (Self::Bare, "bare"),
        (Self::Lies, "lies"),
        (Self::OtherId, "other-id"),
        (Self::Error, "error"),
        (Self::Moved, "moved"),
    ];
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A datagram comes in.
    Receive {
        /// Number of the speaker, taken round the cast.
        from: u8,
        /// How often it comes, at least once.
        times: u8,
        /// What it holds.
        template: Vec<u8>,
    },
    /// Everything that was asked of nodes of the cast is answered, and what they are asked then.
    Answer(Style),
    /// The owner calls.
    Call(Call, u8),
    /// Time passes, in milliseconds.
    Pass(u32),
}

/// What happens to one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Which node.
    pub profile: Profile,
    /// In order.
    pub steps: Vec<Step>,
}

/// A line that is no step.
#[derive(Debug, PartialEq, Eq)]
pub struct BadLine(pub String);

impl fmt::Display for BadLine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "no step of a script: {}", self.0)
    }
}

impl std::error::Error for BadLine {}

/// The name of a value in a table of names.
fn name_of<T: PartialEq>(table: &[(T, &'static str)], value: &T) -> &'static str {
    let named = table.iter().find(|(named, _)| named == value);
    named.map_or("", |(_, name)| name)
}

/// The value with a name.
fn named<T: Copy>(table: &[(T, &'static str)], name: &str) -> Option<T> {
    let found = table.iter().find(|(_, known)| *known == name);
    found.map(|(value, _)| *value)
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive {
                from,
                times,
                template,
            } => {
                write!(out, "from {from} ")?;
                if *times > 1 {
                    write!(out, "x{times} ")?;
                }
                out.write_str(&template::to_text(template))
            }
            Self::Answer(style) => write!(out, "answer {}", name_of(&Style::ALL, style)),
            Self::Call(call, number) => {
                write!(out, "call {} {number}", name_of(&Call::ALL, call))
            }
            Self::Pass(millis) => write!(out, "pass {millis}"),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "node {}", self.profile.name())?;
        self.steps
            .iter()
            .try_for_each(|step| writeln!(out, "{step}"))
    }
}

fn parse_step(line: &str) -> Option<Step> {
    let mut words = line.split(' ');
    let step = match (words.next()?, words.next()?) {
        ("from", from) => {
            let from = from.parse().ok()?;
            let mut word = words.next().unwrap_or_default();
            let mut times = 1;
            // With nothing behind it, it is the datagram.
            if let (Some(count), Some(datagram)) = (word.strip_prefix('x'), words.next()) {
                times = count.parse().ok()?;
                word = datagram;
            }
            Step::Receive {
                from,
                times,
                template: template::from_text(word)?,
            }
        }
        ("answer", style) => Step::Answer(named(&Style::ALL, style)?),
        ("call", call) => Step::Call(named(&Call::ALL, call)?, words.next()?.parse().ok()?),
        ("pass", millis) => Step::Pass(millis.parse().ok()?),
        _ => return None,
    };
    words.next().is_none().then_some(step)
}

/// Reads scripts, one after the other.
///
/// # Errors
///
/// [`BadLine`] with the first line that is none of a script.
pub fn parse(text: &str) -> Result<Vec<Script>, BadLine> {
    let mut scripts: Vec<Script> = Vec::new();
    for line in text.lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = || BadLine(line.to_owned());
        if let Some(name) = line.strip_prefix("node ") {
            let profile = Profile::ALL.into_iter().find(|one| one.name() == name);
            scripts.push(Script {
                profile: profile.ok_or_else(bad)?,
                steps: Vec::new(),
            });
        } else {
            let script = scripts.last_mut().ok_or_else(bad)?;
            script.steps.push(parse_step(line).ok_or_else(bad)?);
        }
    }
    Ok(scripts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_come_back_from_their_text() {
        let receive = |times, template: &[u8]| Step::Receive {
            from: 7,
            times,
            template: template.to_vec(),
        };
        let mut steps = vec![receive(1, b"d1:t\x01T e"), receive(60, b""), Step::Pass(9)];
        steps.push(receive(1, b"x9"));
        steps.extend(Style::ALL.map(|(style, _)| Step::Answer(style)));
        steps.extend(Call::ALL.map(|(call, _)| Step::Call(call, 3)));
        let scripts = Profile::ALL.map(|profile| Script {
            profile,
            steps: steps.clone(),
        });
        let text: Vec<_> = scripts.iter().map(ToString::to_string).collect();
        let text = format!("# a remark\n{}", text.join("\n"));
        assert_eq!(parse(&text), Ok(scripts.to_vec()), "{text}");
    }

    #[test]
    fn a_line_that_is_no_step_is_named() {
        for line in [
            "pass 1",
            "node big",
            "node plain\npass x",
            "node plain\nfrom 1 x2 x3 x4",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

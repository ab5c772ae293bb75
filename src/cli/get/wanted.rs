//! What one SOURCE of `get` asks for.

use std::sync::Arc;

use crate::bencode::Limits;
use crate::cli::args::GetArgs;
use crate::cli::print::{Failure, shorten};
use crate::cli::show;
use crate::metainfo::{FileRule, FileSelection, Info, Magnet, Metainfo};
use crate::net::fetch::fetch;
use crate::session::{AddOptions, Source};

/// One SOURCE, read.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// What it is for the session.
    pub(super) source: Source,
    /// What to call it before the metadata is known.
    pub(super) name: String,
    /// Peers named by host (magnet `x.pe`).
    pub(super) peer_hosts: Vec<(String, u16)>,
    /// The rest of the torrent, as far as the source says it: trackers, web seeds, nodes. Its info
    /// dictionary is that of a .torrent file, and comes from peers otherwise.
    pub(super) around: Around,
    /// The files that are wanted.
    pub(super) files: FileSelection,
}

/// What a source says beside the info dictionary.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    /// Tiers of trackers.
    pub(super) trackers: Vec<Vec<String>>,
    /// Web seeds.
    pub(super) web_seeds: Vec<String>,
    /// DHT nodes (BEP 5).
    pub(super) nodes: Vec<(String, u16)>,
}

impl Around {
    /// A whole .torrent with this information dictionary.
    pub(super) fn metainfo(&self, info: &Arc<Info>) -> Metainfo {
        let mut metainfo = Metainfo::new(Arc::clone(info));
        metainfo.trackers.clone_from(&self.trackers);
        metainfo.web_seeds.clone_from(&self.web_seeds);
        metainfo.nodes.clone_from(&self.nodes);
        metainfo
    }
}

impl Wanted {
    /// Reads a SOURCE argument; `files` is what the user chose, who overrules the link (BEP 53).
    ///
    /// # Errors
    ///
    /// As [`show::Source::read`], and what is said of a web address that does not lead to a torrent.
    pub(super) async fn read(text: &str, files: Option<&FileSelection>) -> Result<Self, Failure> {
        let source = if show::is_web_address(text) {
            show::Source::Metainfo(Box::new(download(text).await?))
        } else {
            show::Source::read(text)?
        };
        Ok(match source {
            show::Source::Magnet(magnet) => Self::of_magnet(magnet, files),
            show::Source::Metainfo(metainfo) => Self {
                name: metainfo.info.name().to_owned(),
                peer_hosts: Vec::new(),
                source: Source::Info(Arc::clone(&metainfo.info)),
                around: Around {
                    trackers: metainfo.trackers,
                    web_seeds: metainfo.web_seeds,
                    nodes: metainfo.nodes,
                },
                files: files.cloned().unwrap_or_default(),
            },
        })
    }

    /// What a magnet link asks for; `files` as in [`Wanted::read`].
    pub(super) fn of_magnet(magnet: Magnet, files: Option<&FileSelection>) -> Self {
        Self {
            name: magnet
                .name
                .clone()
                .unwrap_or_else(|| magnet.info_hash.to_string()),
            peer_hosts: magnet.peer_hosts.clone(),
            around: Around {
                // Each `tr` is a tier of its own: the link says nothing of tiers.
                trackers: magnet
                    .trackers
                    .iter()
                    .map(|url| vec![url.clone()])
                    .collect(),
                web_seeds: magnet.web_seeds.clone(),
                nodes: Vec::new(),
            },
            files: files.cloned().unwrap_or_else(|| select_only(&magnet)),
            source: Source::Magnet(magnet),
        }
    }

    /// The info dictionary, if the source has it.
    pub(super) fn info(&self) -> Option<&Arc<Info>> {
        match &self.source {
            Source::Info(info) => Some(info),
            Source::Magnet(_) => None,
        }
    }

    /// How the session is to go about it.
    pub(super) fn options(&self, args: &GetArgs) -> AddOptions {
        AddOptions {
            output: args.output.clone(),
            peers: args.peers.peer.clone(),
            trackers: self.around.trackers.clone(),
            files: self.files.clone(),
            sequential: args.sequential,
            metadata_only: args.list || args.metadata_only,
            ..AddOptions::default()
        }
    }
}

/// The files that a magnet link selects (BEP 53).
fn select_only(magnet: &Magnet) -> FileSelection {
    let index = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
    let rules: Vec<FileRule> = magnet
        .select_only
        .iter()
        .map(|&(first, last)| FileRule::Indexes {
            first: index(first),
            last: index(last),
        })
        .collect();
    if rules.is_empty() {
        FileSelection::All
    } else {
        FileSelection::Of(rules)
    }
}

/// Fetches a .torrent file from the web.
async fn download(url: &str) -> Result<Metainfo, Failure> {
    let what = || shorten(url, 120);
    let bytes = fetch(url, Limits::METAINFO.length_max)
        .await
        .map_err(|error| {
            Failure::because(format!("cannot fetch {}", what()), &error)
                .hint("download the .torrent file by other means and give its path")
        })?;
    Metainfo::parse(&bytes).map_err(|error| {
        Failure::because(format!("{} is no .torrent file", what()), &error)
            .hint("it may be a page about one: give the address of the file itself")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: &str = "magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&so=0,3-5";

    #[tokio::test]
    async fn a_link_selects_files_unless_the_user_does() {
        let wanted = Wanted::read(LINK, None).await.unwrap();
        assert_eq!(wanted.files, FileSelection::parse("0,3-5").unwrap());
        let own = FileSelection::parse("7").unwrap();
        assert_eq!(Wanted::read(LINK, Some(&own)).await.unwrap().files, own);
    }

    #[tokio::test]
    async fn trackers_of_a_link_come_along() {
        let wanted = Wanted::read(&format!("{LINK}&tr=http://t/a&ws=http://w/"), None)
            .await
            .unwrap();
        assert_eq!(wanted.around.trackers, [["http://t/a"]]);
        assert_eq!(wanted.around.web_seeds, ["http://w/"]);
        assert!(wanted.info().is_none());
    }
}

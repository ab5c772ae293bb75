//! What each message of the peer does.

use super::*;
use crate::bitfield::Bitfield;
use crate::metainfo::BLOCK_LENGTH;

impl Connection {
    /// Their handshake is in: checks it and says everything that comes first.
    pub(super) fn on_handshake(&mut self, handshake: Handshake) -> Result<(), ProtocolError> {
        if handshake.info_hash != self.local.info_hash {
            return Err(ProtocolError::WrongInfoHash);
        }
        if handshake.peer_id == self.local.peer_id {
            return Err(ProtocolError::Ourselves);
        }
        self.stage = Stage::Open(handshake.reserved);
        self.events.push_back(Event::Handshake(handshake));
        self.send_extension_handshake(handshake.reserved);
        self.say_what_we_have();
        if let Some(port) = self.local.dht_port
            && handshake.reserved.has_dht()
        {
            self.outbox.push(&Message::Port(port));
        }
        if self.interest.told {
            self.outbox.push(&Message::Interested);
        }
        if !self.uploads.is_choking() {
            self.outbox.push(&Message::Unchoke);
        }
        Ok(())
    }

    /// Says which pieces we have: with the fast extension always, else if we have any (BEP 6, BEP 3).
    fn say_what_we_have(&mut self) {
        let have = self.torrent.as_ref().map(|torrent| &torrent.have);
        let have = have.filter(|have| have.count() > 0);
        match (have, self.is_fast()) {
            (None, false) => {}
            (None, true) => self.outbox.push(&Message::HaveNone),
            (Some(have), true) if have.is_full() => self.outbox.push(&Message::HaveAll),
            (Some(have), _) => self.outbox.push(&Message::Bitfield(have.to_wire())),
        }
    }

    /// Sends our extension handshake to a peer that understands it.
    pub(super) fn send_extension_handshake(&mut self, theirs: Reserved) {
        if !theirs.has_extensions() {
            return;
        }
        let handshake = ExtensionHandshake {
            ut_metadata: Some(UT_METADATA_ID),
            ut_pex: self.pex_id(),
            lt_donthave: Some(LT_DONTHAVE_ID),
            metadata_size: self.local.metadata_size,
            client: Some(CLIENT.to_owned()),
            listen_port: self.local.listen_port,
            request_queue: u32::try_from(self.config.upload_queue_max).ok(),
            your_ip: Some(self.local.remote_ip.to_canonical()),
            upload_only: self.local.upload_only,
        };
        let payload = Bytes::from(handshake.encode());
        self.outbox.push(&Message::Extended { id: 0, payload });
    }

    /// One message.
    pub(super) fn on_message(&mut self, message: Message) -> Result<(), ProtocolError> {
        match message {
            Message::KeepAlive => Ok(()),
            Message::Choke => self.on_choke(true),
            Message::Unchoke => self.on_choke(false),
            Message::Interested => self.on_interested(true),
            Message::NotInterested => self.on_interested(false),
            Message::Have { index } => self.on_have(index),
            Message::Bitfield(bits) => self.on_bitfield(&bits),
            Message::Request {
                index,
                offset,
                length,
            } => self.on_request(index, offset, length),
            Message::Piece {
                index,
                offset,
                data,
            } => self.on_piece(index, offset, data),
            Message::Cancel {
                index,
                offset,
                length,
            } => self.on_cancel(index, offset, length),
            Message::Port(port) => {
                self.on_port(port);
                Ok(())
            }
            Message::Extended { id, payload } => self.on_extended(id, &payload),
            message @ (Message::Suggest { .. }
            | Message::HaveAll
            | Message::HaveNone
            | Message::Reject { .. }
            | Message::AllowedFast { .. }) => self.on_fast(&message),
            Message::Unknown { .. } => Ok(()),
        }
    }

    /// Counts a choke or interest message, or one that changes what the peer has as a whole; too many in a short time
    /// are an attack or a bug.
    pub(super) fn count_change(&mut self) -> Result<(), ProtocolError> {
        let (start, count) = &mut self.changes;
        if self.now.saturating_since(*start) >= CHANGES_SPAN {
            (*start, *count) = (self.now, 0);
        }
        *count += 1;
        if *count > CHANGES_MAX {
            let what = "changes of choke, interest or all pieces";
            return Err(ProtocolError::TooMany { what });
        }
        Ok(())
    }

    fn on_choke(&mut self, choking: bool) -> Result<(), ProtocolError> {
        self.count_change()?;
        if self.peer_choking == choking {
            return Ok(());
        }
        self.peer_choking = choking;
        if choking {
            let lost = self.requests.on_choked(self.is_fast());
            self.events.push_back(Event::Choked { lost });
        } else {
            self.requests.on_unchoked(self.now, &self.config);
            self.events.push_back(Event::Unchoked);
        }
        Ok(())
    }

    fn on_interested(&mut self, interested: bool) -> Result<(), ProtocolError> {
        self.count_change()?;
        if self.peer_interested != interested {
            self.peer_interested = interested;
            self.events.push_back(if interested {
                Event::Interested
            } else {
                Event::NotInterested
            });
        }
        Ok(())
    }

    fn on_bitfield(&mut self, bits: &[u8]) -> Result<(), ProtocolError> {
        let news = self.remote.on_bitfield(bits)?;
        self.tell(news);
        Ok(())
    }

    /// Tells what the peer said of its pieces.
    pub(super) fn tell(&mut self, news: News) {
        match news {
            News::Unknown => {}
            News::Bitfield => self.events.push_back(Event::Bitfield),
            News::Haves(pieces) => {
                let geometry = self.torrent.as_ref().map(|torrent| &torrent.geometry);
                let known = pieces
                    .into_iter()
                    .filter_map(|piece| geometry?.piece(piece));
                self.events.extend(known.map(Event::Have));
            }
        }
    }

    fn on_have(&mut self, index: u32) -> Result<(), ProtocolError> {
        if self.remote.on_have(index)?
            && let Some(torrent) = &self.torrent
            && let Some(piece) = torrent.geometry.piece(index)
        {
            self.events.push_back(Event::Have(piece));
        }
        Ok(())
    }

    /// They do not have a piece any more (BEP 54). Without the fast extension what we asked of it will not come,
    /// and nobody will say so.
    fn on_donthave(&mut self, payload: &Bytes) -> Result<(), ProtocolError> {
        let bytes = <[u8; 4]>::try_from(payload.as_ref());
        let index = u32::from_be_bytes(bytes.map_err(|_| ProtocolError::Extension)?);
        if self.remote.checked().is_some_and(Bitfield::is_full) {
            // A seed no more: that concerns each piece.
            self.count_change()?;
        }
        if self.remote.on_donthave(index)?
            && let Some(torrent) = &self.torrent
            && let Some(piece) = torrent.geometry.piece(index)
        {
            self.events.push_back(Event::Lost(piece));
            if !self.is_fast() {
                let lost = self.requests.cancel_piece(piece);
                self.events.push_back(Event::Rejected { lost });
            }
        }
        Ok(())
    }

    fn on_request(&mut self, index: u32, offset: u32, length: u32) -> Result<(), ProtocolError> {
        self.remote.close_bitfield();
        if !self.take_request(index, offset, length)? && self.is_fast() {
            self.outbox.push(&Message::Reject {
                index,
                offset,
                length,
            });
        }
        Ok(())
    }

    /// Queues a request; whether it will be answered with its block.
    fn take_request(
        &mut self,
        index: u32,
        offset: u32,
        length: u32,
    ) -> Result<bool, ProtocolError> {
        let Some(torrent) = &self.torrent else {
            check_length(length)?;
            self.uploads.refuse()?;
            return Ok(false);
        };
        let block = torrent
            .geometry
            .checked_block(index, offset, length)
            .ok_or(ProtocolError::OutOfRange)?;
        if !torrent.have.contains(index) {
            self.uploads.refuse()?;
            return Ok(false);
        }
        let is_free = self.uploads.is_choking() && self.gives_while_choking(block.piece);
        let queue_max = self.config.upload_queue_max;
        let is_taken = self.uploads.push(block, is_free, queue_max)?;
        if is_taken && is_free {
            self.fast.on_given();
        }
        Ok(is_taken)
    }

    fn on_cancel(&mut self, index: u32, offset: u32, length: u32) -> Result<(), ProtocolError> {
        self.remote.close_bitfield();
        let Some(torrent) = &self.torrent else {
            return check_length(length);
        };
        let block = torrent
            .geometry
            .checked_block(index, offset, length)
            .ok_or(ProtocolError::OutOfRange)?;
        if self.uploads.cancel(block) {
            self.reject_all([block]);
        }
        Ok(())
    }

    fn on_piece(&mut self, index: u32, offset: u32, data: Payload) -> Result<(), ProtocolError> {
        self.remote.close_bitfield();
        let bytes = u32::try_from(data.len()).map_err(|_| ProtocolError::OutOfRange)?;
        let Some(torrent) = &self.torrent else {
            self.requests.on_unwanted()?;
            self.events.push_back(Event::Unwanted { bytes });
            return Ok(());
        };
        let block = torrent
            .geometry
            .checked_block(index, offset, bytes)
            .ok_or(ProtocolError::OutOfRange)?;
        match self.requests.on_block(self.now, block)? {
            Arrival::Wanted { unsnubbed } => {
                if unsnubbed {
                    self.events.push_back(Event::Snubbed(false));
                }
                self.events.push_back(Event::Block { block, data });
            }
            Arrival::Unwanted => self.events.push_back(Event::Unwanted { bytes }),
        }
        Ok(())
    }

    /// They name their DHT port; only changes count, and only so many.
    fn on_port(&mut self, port: u16) {
        let (last, count) = &mut self.dht_port;
        if port != 0 && *last != Some(port) && *count < DHT_PORTS_MAX {
            *last = Some(port);
            *count += 1;
            self.events.push_back(Event::DhtPort(port));
        }
    }

    fn on_extended(&mut self, id: u8, payload: &Bytes) -> Result<(), ProtocolError> {
        match id {
            0 => {
                let known = self.extensions.get_or_insert_default();
                known.update(payload)?;
                self.events.push_back(Event::Extended(known.clone()));
            }
            UT_METADATA_ID => match MetadataMessage::decode(payload)? {
                MetadataMessage::Unknown => {}
                message => self.events.push_back(Event::Metadata(message)),
            },
            UT_PEX_ID if self.local.pex => self.on_pex(payload)?,
            LT_DONTHAVE_ID => self.on_donthave(payload)?,
            // We offered no other id: ignored, as messages we do not know are (BEP 10).
            _ => {}
        }
        Ok(())
    }
}

/// Whether a block of any torrent can be so long: what is known before the metadata is.
const fn check_length(length: u32) -> Result<(), ProtocolError> {
    match length {
        1..=BLOCK_LENGTH => Ok(()),
        _ => Err(ProtocolError::OutOfRange),
    }
}

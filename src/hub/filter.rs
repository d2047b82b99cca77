//! Which media sessions somebody means: REST's `find` and `terminate`, and the command line's. Pure.
//! Source: wcs.md 1.10.

use super::handle::StreamHandle;
use super::view::{Role, SessionView, StreamView};
use super::{Hub, Streams};
use crate::name::MediaSessionId;

/// Media sessions with the streams they are of.
pub type Found = Vec<(StreamHandle, MediaSessionId)>;

/// A wish: everything given must fit; what is `None` fits everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The media session.
    pub id: Option<String>,
    /// One of these media sessions.
    pub ids: Option<Vec<String>>,
    /// The connection it came by.
    pub connection: Option<String>,
    /// The application.
    pub app_key: Option<String>,
    /// The stream's name, as it is or as lists show it.
    pub name: Option<String>,
    /// Publisher or player.
    pub role: Option<Role>,
    /// WCS's status word.
    pub status: Option<String>,
    /// WCS's word for what carries it: `WebRTC`, `Flash`.
    pub provider: Option<String>,
    /// WCS's word for what it is: `publish`, `play`, `rtmp`, `rtsp`.
    pub media_type: Option<String>,
}

impl Filter {
    /// Whether nothing is given: everybody is meant, which nobody should be taken to mean who ends what is found.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether this session of a stream is meant.
    pub fn fits(&self, view: &StreamView, session: &SessionView) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        let id = session.id.as_str();
        same(&self.id, id)
            && self.ids.as_ref().is_none_or(|ids| ids.iter().any(|one| one == id))
            && same(&self.connection, &session.connection)
            && same(&self.app_key, &session.app_key)
            && self.names(view)
            && self.role.is_none_or(|role| role == session.role)
            && same(&self.status, session.status)
            && same(&self.provider, session.provider)
            && same(&self.media_type, session.media_type)
    }

    fn names(&self, view: &StreamView) -> bool {
        self.name.as_deref().is_none_or(|name| name == view.name.as_str() || name == view.name.to_string())
    }

    /// Looks at each session of these streams that is meant; the streams in the order of their names.
    pub fn each<T>(
        &self,
        streams: &Streams,
        mut look: impl FnMut(&StreamHandle, &StreamView, &SessionView) -> T,
    ) -> Vec<T> {
        let mut found = Vec::new();
        for stream in streams.values() {
            stream.look(|view| {
                let meant = view.sessions.iter().filter(|session| self.fits(view, session));
                found.extend(meant.map(|session| look(stream, view, session)));
            });
        }
        found
    }

    /// Who is meant now.
    pub fn among(&self, hub: &Hub) -> Found {
        self.each(&hub.streams(), |stream, _, session| (stream.clone(), session.id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::view::Publisher;
    use crate::hub::view::first_view;
    use crate::name::StreamName;

    /// A pull of a camera behind a password, and one player of it.
    fn view() -> StreamView {
        let publisher = Publisher {
            name: StreamName::new("rtsp://user:secret@camera/1").expect("a name"),
            session: MediaSessionId::new("S").expect("an id"),
            app_key: "defaultApp".into(),
            connection: "c1".into(),
            login: None,
            provider: "WebRTC",
            media_type: "rtsp",
            transport: "TCP",
            record: None,
            by: "nobody".into(),
        };
        let mut view = first_view(&publisher);
        let player = SessionView {
            id: MediaSessionId::new("P").expect("an id"),
            role: Role::Player,
            status: "PLAYING",
            media_type: "play",
            connection: "c2".into(),
            ..view.sessions[0].clone()
        };
        view.sessions.push(player);
        view
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn everything_given_must_fit() {
        let view = view();
        let any = Filter::default;
        for (filter, wanted) in [
            (any(), "SP"),
            (Filter { id: text("S"), ..any() }, "S"),
            (Filter { ids: Some(vec!["P".into(), "x".into()]), ..any() }, "P"),
            (Filter { ids: Some(vec![]), ..any() }, ""),
            (Filter { id: text("S"), ids: Some(vec!["P".into()]), ..any() }, ""),
            (Filter { connection: text("c2"), ..any() }, "P"),
            (Filter { app_key: text("defaultApp"), ..any() }, "SP"),
            (Filter { app_key: text("other"), ..any() }, ""),
            (Filter { name: text("rtsp://user:secret@camera/1"), ..any() }, "SP"),
            (Filter { name: text("rtsp://user:***@camera/1"), role: Some(Role::Player), ..any() }, "P"),
            (Filter { name: text("rtsp://camera/1"), ..any() }, ""),
            (Filter { role: Some(Role::Publisher), ..any() }, "S"),
            (Filter { role: Some(Role::Publisher), status: text("PLAYING"), ..any() }, ""),
            (Filter { status: text("PENDING"), ..any() }, "S"),
            (Filter { provider: text("WebRTC"), ..any() }, "SP"),
            (Filter { provider: text("Flash"), ..any() }, ""),
            (Filter { media_type: text("play"), ..any() }, "P"),
        ] {
            let found: String =
                view.sessions.iter().filter(|session| filter.fits(&view, session)).map(|s| s.id.as_str()).collect();
            assert_eq!(found, wanted, "{filter:?}");
        }
        assert!(any().is_empty() && !Filter { ids: Some(vec![]), ..any() }.is_empty());
    }
}

//! A TCP connection, with or without TLS.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    connection::{options::ConnectionOptions, uri::Endpoint},
    error::Error,
};

pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects to the first of the host's addresses that answers. The caller has a deadline for it.
    pub(super) async fn connect(endpoint: &Endpoint, options: &ConnectionOptions) -> Result<Self, Error> {
        let unreachable = |error: io::Error| endpoint.unreachable(&error.to_string());
        let host = &*endpoint.host;
        let stream = TcpStream::connect((host, endpoint.port)).await.map_err(unreachable)?;
        // The io task gathers small frames itself: Nagle's algorithm would only delay them.
        stream.set_nodelay(true).map_err(unreachable)?;
        if !endpoint.is_tls {
            return Ok(Self::Tcp(stream));
        }
        #[cfg(feature = "tls")]
        return super::tls::connect(stream, host, &options.tls)
            .await?
            .map(|stream| Self::Tls(Box::new(stream)))
            .map_err(unreachable);
        #[cfg(not(feature = "tls"))]
        {
            let _ = options;
            Err(Error::InvalidUri { reason: "amqps needs rpc-core's feature 'tls'".to_owned() })
        }
    }
}

/// Does the same with either stream.
macro_rules! either {
    ($socket:expr, $stream:ident => $result:expr) => {
        match $socket {
            Socket::Tcp($stream) => $result,
            #[cfg(feature = "tls")]
            Socket::Tls($stream) => $result,
        }
    };
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

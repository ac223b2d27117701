import NIOCore
import NIOHTTP2

/// How much a server may send by HTTP/2 before it gets an acknowledgement.
///
/// HTTP/2 starts with windows of 65,535 bytes, for each answer and for all answers together (RFC 9113, section 6.9.2).
/// With these, the last byte of a granule would arrive a round trip late. AsyncHTTPClient widens both windows only once
/// they are half used up.
enum HTTP2Windows {
    /// The size that AsyncHTTPClient widens them to.
    private static let size = 8 << 20
    private static let initialSize = 65_535

    /// Widens the windows of a new connection. To be called before the first request.
    static func widen(_ connection: any Channel) -> EventLoopFuture<Void> {
        let settings = HTTP2Frame.FramePayload.settings(
            .settings([HTTP2Setting(parameter: .initialWindowSize, value: size)]))
        let update = HTTP2Frame.FramePayload.windowUpdate(windowSizeIncrement: size - initialSize)
        connection.write(HTTP2Frame(streamID: .rootStream, payload: settings), promise: nil)
        return connection.writeAndFlush(HTTP2Frame(streamID: .rootStream, payload: update))
    }
}

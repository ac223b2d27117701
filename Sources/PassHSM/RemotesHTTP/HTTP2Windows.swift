import NIOCore
import NIOHTTP2

/// How much a server may send by HTTP/2 before it hears that something of it was taken.
///
/// HTTP/2 begins with 65,535 bytes, for each answer and for all of them together (RFC 9113, section 6.9.2): the last byte of
/// a granule would be a round trip late. AsyncHTTPClient widens both when they are half used up, and not before.
enum HTTP2Windows {
    /// What AsyncHTTPClient widens them to.
    private static let size = 8 << 20
    private static let initialSize = 65_535

    /// Tells the server of a connection that was just made, before the first request.
    static func widen(_ connection: any Channel) -> EventLoopFuture<Void> {
        let settings = HTTP2Frame.FramePayload.settings(
            .settings([HTTP2Setting(parameter: .initialWindowSize, value: size)]))
        let update = HTTP2Frame.FramePayload.windowUpdate(windowSizeIncrement: size - initialSize)
        connection.write(HTTP2Frame(streamID: .rootStream, payload: settings), promise: nil)
        return connection.writeAndFlush(HTTP2Frame(streamID: .rootStream, payload: update))
    }
}

import Foundation
import Glibc
import Synchronization

/// A web server on a loopback port that does what a test says, wrong things above all. Ends with ``stop()``.
package final class FaultServer: Sendable {
    package struct Request: Sendable {
        package let method: String
        /// Path and query, as they were sent.
        package let target: String
        /// By names in lower case.
        package let headers: [String: String]
        /// Of `Content-Length` bytes.
        package let body: [UInt8]

        /// Of `Range: bytes=first-last`.
        package var range: Range<Int>? {
            let ends = headers["range"]?.dropFirst("bytes=".count).split(separator: "-").compactMap { Int($0) }
            guard let ends, ends.count == 2 else { return nil }
            return ends[0]..<ends[1] + 1
        }
    }

    /// What is sent, and how.
    package struct Reply: Sendable {
        package var status = 200
        /// Content-Length is the body's, unless it is among them.
        package var headers: [String: String] = [:]
        package var body: [UInt8] = []
        /// Bytes of the body after which the connection is closed.
        package var cut: Int?
        /// The body comes in pieces of so many bytes, a hundredth of a second apart.
        package var trickle: Int?
        /// Milliseconds before anything is sent.
        package var delay = 0
        /// Nothing is ever sent.
        package var isSilent = false
        /// Sent instead of everything above.
        package var raw: String?
        /// Of a proxy: from here on everything is passed on to this port, and back.
        package var tunnel: Int?

        package init(status: Int = 200, headers: [String: String] = [:], body: [UInt8] = []) {
            self.status = status
            self.headers = headers
            self.body = body
        }
    }

    /// There is no port to listen on.
    package struct Failure: Error {}

    private struct State {
        var requests: [Request] = []
        var connections: Set<Int32> = []
        var accepted = 0
        var sent = 0
        var isStopped = false
    }

    package let port: Int
    private let listener: Int32
    private let handler: @Sendable (Request) -> Reply
    private let state = Mutex(State())

    /// Listens from now on. `handler` is called on a thread of the request's connection, and may block.
    package init(_ handler: @escaping @Sendable (Request) -> Reply) throws {
        self.handler = handler
        guard let (listener, port) = Loopback.listener() else { throw Failure() }
        self.listener = listener
        self.port = port
        Thread.detachNewThread { [self] in accept() }
    }

    package var url: String { "http://127.0.0.1:\(port)/" }
    /// All that came so far.
    package var requests: [Request] { state.withLock { $0.requests } }
    /// Connections that were made so far.
    package var accepted: Int { state.withLock { $0.accepted } }

    /// Connections that are there now.
    package var connected: Int { state.withLock(\.connections.count) }
    /// Bytes that the kernel took of all answers so far.
    package var sent: Int { state.withLock { $0.sent } }

    /// Closes everything; to be called once.
    package func stop() {
        state.withLock { state in
            state.isStopped = true
            shutdown(listener, Int32(SHUT_RDWR))
            for connection in state.connections { shutdown(connection, Int32(SHUT_RDWR)) }
        }
    }

    private func accept() {
        while true {
            let connection = Glibc.accept(listener, nil, nil)
            let isWanted =
                connection >= 0
                && state.withLock { state in
                    guard !state.isStopped else { return false }
                    state.accepted += 1
                    return state.connections.insert(connection).inserted
                }
            guard isWanted else {
                if connection >= 0 { close(connection) }
                close(listener)
                return
            }
            Thread.detachNewThread { [self] in
                while let request = next(connection), answer(request, connection) {}
                state.withLock { _ = $0.connections.remove(connection) }
                close(connection)
            }
        }
    }

    private func next(_ connection: Int32) -> Request? {
        var bytes: [UInt8] = []
        var byte: UInt8 = 0
        while !bytes.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            guard recv(connection, &byte, 1, 0) == 1 else { return nil }
            bytes.append(byte)
        }
        let lines = String(decoding: bytes, as: UTF8.self).components(separatedBy: "\r\n")
        let words = lines[0].split(separator: " ").map(String.init)
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            guard let colon = line.firstIndex(of: ":") else { continue }
            headers[line[..<colon].lowercased()] = String(line[line.index(after: colon)...].drop { $0 == " " })
        }
        var body: [UInt8] = []
        for _ in 0..<(headers["content-length"].flatMap { Int($0) } ?? 0) {
            guard recv(connection, &byte, 1, 0) == 1 else { return nil }
            body.append(byte)
        }
        let request = Request(method: words[0], target: words[1], headers: headers, body: body)
        state.withLock { $0.requests.append(request) }
        return request
    }

    /// - Returns: whether the connection goes on.
    private func answer(_ request: Request, _ connection: Int32) -> Bool {
        let reply = handler(request)
        if reply.delay > 0 { usleep(UInt32(reply.delay) * 1000) }
        if reply.isSilent {
            // Until the other side gives up.
            var byte: UInt8 = 0
            return recv(connection, &byte, 1, 0) > 0
        }
        if let raw = reply.raw {
            _ = put(Array(raw.utf8), connection)
            return false
        }
        if let port = reply.tunnel {
            pass(connection, to: port)
            return false
        }
        var headers = reply.headers
        if headers["Content-Length"] == nil && headers["Transfer-Encoding"] == nil {
            headers["Content-Length"] = "\(reply.body.count)"
        }
        let fields = headers.map { "\($0): \($1)\r\n" }.joined()
        guard put(Array("HTTP/1.1 \(reply.status) Words\r\n\(fields)\r\n".utf8), connection) else { return false }
        if request.method == "HEAD" { return true }
        let body = reply.body.prefix(reply.cut ?? Int.max)
        guard let piece = reply.trickle else { return put(Array(body), connection) && reply.cut == nil }
        for start in stride(from: 0, to: body.count, by: piece) {
            guard put(Array(body[start..<min(start + piece, body.count)]), connection) else { return false }
            usleep(10_000)
        }
        return reply.cut == nil
    }

    /// As a proxy does that was asked to CONNECT: until one side ends.
    private func pass(_ connection: Int32, to port: Int) {
        guard let onward = Loopback.connection(to: port) else { return }
        defer { close(onward) }
        guard put(Array("HTTP/1.1 200 Words\r\n\r\n".utf8), connection) else { return }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        var sides = [connection, onward].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while poll(&sides, 2, -1) > 0 {
            for (index, side) in sides.enumerated() where side.revents != 0 {
                let count = recv(side.fd, &buffer, buffer.count, 0)
                guard count > 0, put(Array(buffer[..<count]), sides[1 - index].fd) else { return }
            }
        }
    }

    private func put(_ bytes: [UInt8], _ connection: Int32) -> Bool {
        guard Loopback.send(bytes, to: connection) else { return false }
        state.withLock { $0.sent += bytes.count }
        return true
    }
}

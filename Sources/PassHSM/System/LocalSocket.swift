import CLinux
import Glibc
import Synchronization

/// One end of a UNIX stream socket. No method blocks beyond its deadline, and none raises SIGPIPE.
package final class LocalSocket: Sendable {
    package let descriptor: Descriptor

    /// Bytes that were read beyond the last line. A leaf lock; only one thread at a time may read lines.
    private let ahead = Mutex<[UInt8]>([])

    private init(_ descriptor: Descriptor) { self.descriptor = descriptor }

    private static func make() throws(Errno) -> Descriptor {
        Descriptor(owning: try check { passhsm_unix_socket() })
    }

    /// Binds to a new name in `folder` and listens.
    package static func listen(_ name: String, in folder: Descriptor) throws(Errno) -> LocalSocket {
        let descriptor = try make()
        try path(name, in: folder) { path throws(Errno) in _ = try check { passhsm_unix_bind(descriptor.raw, path) } }
        _ = try check { Glibc.listen(descriptor.raw, 128) }
        return LocalSocket(descriptor)
    }

    /// Connects to the socket `name` in `folder`.
    ///
    /// - Throws: ECONNREFUSED when no process listens; ENOENT when there is no such name; ETIMEDOUT.
    package static func connect(
        _ name: String, in folder: Descriptor, until deadline: Deadline
    ) throws(Errno) -> LocalSocket {
        let descriptor = try make()
        while true {
            do throws(Errno) {
                try path(name, in: folder) { path throws(Errno) in
                    _ = try check { passhsm_unix_connect(descriptor.raw, path) }
                }
                return LocalSocket(descriptor)
            } catch {
                // The server's backlog is full. poll(2) cannot wait for that on UNIX sockets.
                guard error.rawValue == EAGAIN else { throw error }
                if deadline.hasPassed { throw Errno(rawValue: ETIMEDOUT) }
                usleep(20_000)
            }
        }
    }

    /// Leads through the folder's descriptor, because a socket's address holds only 107 bytes and a folder's path may
    /// be longer.
    private static func path(
        _ name: String, in folder: Descriptor, _ body: (UnsafePointer<CChar>) throws(Errno) -> Void
    ) throws(Errno) {
        try BytePath("/proc/self/fd/\(folder.raw)/\(name)").withCString(body)
    }

    /// A waiting connection; nil when there is none.
    package func accept() throws(Errno) -> LocalSocket? {
        do throws(Errno) {
            return LocalSocket(Descriptor(owning: try check { passhsm_accept(descriptor.raw) }))
        } catch {
            if [EAGAIN, ECONNABORTED].contains(error.rawValue) { return nil }
            throw error
        }
    }

    /// The user id of the other side (SO_PEERCRED).
    package func peerUser() throws(Errno) -> UInt32 {
        var user: UInt32 = 0
        _ = try check { passhsm_peer_uid(descriptor.raw, &user) }
        return user
    }

    /// The bytes before the next newline.
    ///
    /// - Throws: EMSGSIZE beyond `limit` bytes, ETIMEDOUT, ECONNRESET when the other side ends before a newline.
    package func readLine(limit: Int, until deadline: Deadline) throws(Errno) -> [UInt8] {
        var line = ahead.withLock { ahead in
            defer { ahead = [] }
            return ahead
        }
        var looked = 0
        var buffer = [UInt8](repeating: 0, count: 16 << 10)
        while true {
            if let end = line[looked...].firstIndex(of: UInt8(ascii: "\n")) {
                let rest = Array(line[(end + 1)...])
                ahead.withLock { $0 = rest }
                if end > limit { throw Errno(rawValue: EMSGSIZE) }
                return Array(line[..<end])
            }
            if line.count > limit { throw Errno(rawValue: EMSGSIZE) }
            looked = line.count
            // A peer that sends a byte now and then is always readable in time, so the deadline is checked here too.
            if looked > 0 && deadline.hasPassed { throw Errno(rawValue: ETIMEDOUT) }
            guard try descriptor.wait(for: Int16(POLLIN), until: deadline) else { throw Errno(rawValue: ETIMEDOUT) }
            let count: Int
            do throws(Errno) {
                count = try check {
                    buffer.withUnsafeMutableBytes { recv(descriptor.raw, $0.baseAddress, $0.count, 0) }
                }
            } catch {
                if error.rawValue == EAGAIN { continue }
                throw error
            }
            guard count > 0 else { throw Errno(rawValue: ECONNRESET) }
            line.append(contentsOf: buffer[..<count])
        }
    }

    /// Writes all of `bytes`.
    ///
    /// - Throws: ETIMEDOUT when the other side does not read; EPIPE when it is gone.
    package func write(_ bytes: [UInt8], until deadline: Deadline) throws(Errno) {
        var rest = bytes[...]
        while !rest.isEmpty {
            guard try descriptor.wait(for: Int16(POLLOUT), until: deadline) else { throw Errno(rawValue: ETIMEDOUT) }
            do throws(Errno) {
                let count = try check {
                    rest.withUnsafeBytes { passhsm_send(descriptor.raw, $0.baseAddress, $0.count) }
                }
                rest = rest.dropFirst(count)
            } catch {
                guard error.rawValue == EAGAIN else { throw error }
                if deadline.hasPassed { throw Errno(rawValue: ETIMEDOUT) }
            }
        }
    }
}

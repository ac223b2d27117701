import Glibc
import HSMStore
import HSMSystem

/// The mount that a guardian guards. The guardian keeps it besides descriptors.
package struct GuardedMount: Codable, Equatable, Sendable {
    package var mountpoint: BytePath
    package var lower: BytePath
    /// Seconds that accesses wait for a new daemon when the daemon dies.
    package var takeoverSeconds: Double
    /// The whole file system is marked, and not only the mount.
    package var isWholeFileSystem: Bool
    /// The mount's unique id; 0 before it is made.
    var mountID: UInt64 = 0

    package init(mountpoint: BytePath, lower: BytePath, takeoverSeconds: Double, isWholeFileSystem: Bool) {
        self.mountpoint = mountpoint
        self.lower = lower
        self.takeoverSeconds = takeoverSeconds
        self.isWholeFileSystem = isWholeFileSystem
    }

    /// ``takeoverSeconds`` as a duration. Another process has sent the number, so it is limited to 0...1e9 seconds,
    /// some 30 years.
    var takeover: Duration { .seconds(min(max(takeoverSeconds, 0), 1e9)) }
}

/// Where the guardian of a lower directory is found: a socket in the registry's folder, named by device and inode of
/// the tree's top. Where the mount covers the lower directory, the directory's own path leads to that inode too.
package struct GuardianAddress: Sendable {
    package let folder: Descriptor
    package let name: String
    static let prefix = "guardian-"

    package init(folder: Descriptor, name: String) {
        self.folder = folder
        self.name = name
    }

    /// - Parameter lower: the lower directory, by any path; only its attributes are asked for.
    package init(folder: Descriptor, lower: BytePath) throws(Errno) {
        let tree = lower.appending(Store.treePath)
        let status = try (try? tree.linkStat()) == nil ? lower.stat() : tree.linkStat()
        self.init(folder: folder, name: "\(Self.prefix)\(status.st_dev)-\(status.st_ino)")
    }

    /// Every address in the folder. Some of their guardians may be gone.
    package static func all(in folder: Descriptor) -> [GuardianAddress] {
        DirectoryReader.texts(in: folder).filter { $0.hasPrefix(prefix) }.map {
            GuardianAddress(folder: folder, name: $0)
        }
    }
}

/// A request to a guardian: one line, which gets one answer.
enum GuardianRequest: Codable {
    /// Hands over the group, the table and the lower directory. From then on the connection ends when the daemon does.
    case keep(GuardedMount)
    /// Asks for the three descriptors, because their daemon is gone.
    case take
    /// Asks which mount is guarded.
    case tell
    /// No daemon will take over: remaining accesses are denied until the mount is gone.
    case end
}

enum GuardianAnswer: Codable {
    case done
    case kept(GuardedMount, isServed: Bool)
    case refused(String)
}

/// A connection to a guardian.
package final class GuardianLink: Sendable {
    let socket: LocalSocket
    /// The time limit of each answer.
    private static let seconds = 10.0

    /// - Throws: ENOENT or ECONNREFUSED when there is no guardian.
    package init(_ address: GuardianAddress, seconds: Double = 2) throws(Errno) {
        socket = try LocalSocket.connect(address.name, in: address.folder, until: Deadline(seconds: seconds))
    }

    private func ask(
        _ request: GuardianRequest, _ descriptors: [Descriptor] = []
    ) throws(Errno) -> (GuardianAnswer, [Descriptor]) {
        guard let line = try? GuardianCoding.encode(request) else { throw Errno(rawValue: EINVAL) }
        let deadline = Deadline(seconds: Self.seconds)
        try socket.send(line, descriptors, until: deadline)
        let (answer, received) = try socket.receive(until: deadline)
        guard let decoded = try? GuardianCoding.decode(GuardianAnswer.self, answer) else {
            throw Errno(rawValue: EBADMSG)
        }
        return (decoded, received)
    }

    /// The guarded mount, and whether a daemon serves it; nil while there is none yet.
    package func tell() throws(Errno) -> (mount: GuardedMount, isServed: Bool)? {
        guard case .kept(let mount, let isServed) = try ask(.tell).0 else { return nil }
        return (mount, isServed)
    }

    /// - Throws: EBUSY when the guardian has a mount already.
    func keep(_ mount: GuardedMount, _ descriptors: [Descriptor]) throws(Errno) {
        guard case .done = try ask(.keep(mount), descriptors).0 else { throw Errno(rawValue: EBUSY) }
    }

    /// The guarded mount, with its descriptors; nil while a daemon serves it, or there is none.
    func take() throws(Errno) -> (GuardedMount, [Descriptor])? {
        let (answer, descriptors) = try ask(.take)
        guard case .kept(let mount, _) = answer, descriptors.count == 3 else { return nil }
        return (mount, descriptors)
    }

    /// See ``GuardianRequest/end``. - Throws: EBUSY while another daemon serves the mount.
    package func end() throws(Errno) {
        guard case .done = try ask(.end).0 else { throw Errno(rawValue: EBUSY) }
    }

    /// Returns when the guardian has ended. Reads nothing from the socket, so that a thread that asks meanwhile gets
    /// its answer.
    func waitForEnd() {
        while true {
            do throws(Errno) {
                if try socket.descriptor.wait(for: Self.peerHasEnded, until: Deadline(seconds: 3600)) { return }
            } catch { return }
        }
    }

    /// POLLRDHUP, a GNU name.
    private static let peerHasEnded: Int16 = 0x2000
}

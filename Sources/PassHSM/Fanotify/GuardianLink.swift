import Glibc
import HSMStore
import HSMSystem

/// What a guardian keeps besides descriptors: who mounts, and how.
package struct GuardedMount: Codable, Equatable, Sendable {
    package var mountpoint: BytePath
    package var lower: BytePath
    /// Seconds that whoever waits is kept waiting when the daemon dies.
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

    /// ``takeoverSeconds``, of whatever another process says, within what a clock can count: some 30 years.
    var takeover: Duration { .seconds(min(max(takeoverSeconds, 0), 1e9)) }
}

/// Where the guardian of a lower directory is found: a socket in the registry's folder, named by the inode of its tree's top,
/// which is the lower directory's path again where the mount covers it.
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

    /// Every one in the folder; of some the guardian may be gone.
    package static func all(in folder: Descriptor) -> [GuardianAddress] {
        DirectoryReader.texts(in: folder).filter { $0.hasPrefix(prefix) }.map {
            GuardianAddress(folder: folder, name: $0)
        }
    }
}

/// What is asked of a guardian: lines, each with an answer.
enum GuardianRequest: Codable {
    /// Hands over the group, the table and the lower directory; from then on the connection's end is the daemon's.
    case keep(GuardedMount)
    /// Asks for them, because their daemon is gone.
    case take
    /// Asks what is kept.
    case tell
    /// Nobody will take over: what is left is denied, until the mount is gone.
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
    /// For each answer.
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

    /// What is kept, and whether a daemon serves it; nil when it is nothing yet.
    package func tell() throws(Errno) -> (mount: GuardedMount, isServed: Bool)? {
        guard case .kept(let mount, let isServed) = try ask(.tell).0 else { return nil }
        return (mount, isServed)
    }

    /// - Throws: EBUSY when it keeps something already.
    func keep(_ mount: GuardedMount, _ descriptors: [Descriptor]) throws(Errno) {
        guard case .done = try ask(.keep(mount), descriptors).0 else { throw Errno(rawValue: EBUSY) }
    }

    /// What is kept, with its descriptors; nil while a daemon serves it, or nothing is kept.
    func take() throws(Errno) -> (GuardedMount, [Descriptor])? {
        let (answer, descriptors) = try ask(.take)
        guard case .kept(let mount, _) = answer, descriptors.count == 3 else { return nil }
        return (mount, descriptors)
    }

    /// See ``GuardianRequest/end``. - Throws: EBUSY while a daemon serves it, which is another one.
    package func end() throws(Errno) {
        guard case .done = try ask(.end).0 else { throw Errno(rawValue: EBUSY) }
    }

    /// Returns when the guardian has ended. Takes no answer away from who asks meanwhile.
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

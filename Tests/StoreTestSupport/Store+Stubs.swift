import Glibc
import HSMCore
import HSMStore
import HSMSystem
import TestSupport

extension Store {
    /// Makes a file, and its record, in the store's tree.
    ///
    /// - Parameters:
    ///   - path: an absolute path in the tree; a file that is there is made anew.
    ///   - content: what the file has; nil: nothing of it is present.
    @discardableResult
    package func makeFile(
        _ path: String, _ state: Record.State, _ object: RemoteObject, granuleSize: Int, content: [UInt8]? = nil
    ) throws -> Record {
        let file = try Descriptor.open(path, O_RDWR | O_CREAT | O_TRUNC, mode: 0o644)
        if let content { try file.put(content, at: 0) } else { try file.truncate(to: object.size) }
        let record = Record(
            state: state, object: object, modified: FakeRemote.modified, identity: try FileHandle(of: file),
            granuleSize: granuleSize)
        try write(record, to: file)
        try file.setTimes(access: FileTime.omit, modification: timespec(FakeRemote.modified))
        return record
    }
}

extension timespec {
    package init(_ time: RemoteEntry.Time) { self.init(tv_sec: time.seconds, tv_nsec: time.nanoseconds) }
}

/// Runs `body` again for as long as it finds the store in use: a fetch that is not over yet may hold it, and a child of another
/// test from fork to exec.
package func untilFree<Result>(_ body: () throws -> Result) throws -> Result {
    let end = ContinuousClock.now + .seconds(20)
    while true {
        do { return try body() } catch let error as StoreError {
            guard error.description.contains("in use"), ContinuousClock.now < end else { throw error }
            usleep(1000)
        }
    }
}

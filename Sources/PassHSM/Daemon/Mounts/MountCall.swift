import Glibc
import HSMSystem

/// Why a mount could not be taken away.
struct MountCallError: Error, CustomStringConvertible {
    let code: Int32
    let description: String
}

/// Calls umount2(2), and fusermount3 for users who may not call it.
enum MountCall {
    static func unmount(_ mountpoint: BytePath, lazily: Bool = false) throws(MountCallError) {
        do throws(Errno) {
            try MountTable.unmount(mountpoint, lazily: lazily)
        } catch {
            guard error.rawValue == EPERM else { throw MountCallError(code: error.rawValue, description: error.text) }
            try runHelper(mountpoint, lazily: lazily)
        }
    }

    private static func runHelper(_ mountpoint: BytePath, lazily: Bool) throws(MountCallError) {
        let text: String
        do throws(Errno) {
            let arguments = ["fusermount3", "-u"] + (lazily ? ["-z"] : []) + ["--"]
            let (reader, child) = try spawn(arguments.map { BytePath($0) } + [mountpoint])
            text = String(decoding: try reader.readToEnd(), as: UTF8.self)
            if try child.wait() == 0 { return }
        } catch {
            throw MountCallError(code: error.rawValue, description: "fusermount3: \(error.text)")
        }
        // The helper reports the errno only as text.
        let isBusy = text.contains(String(cString: strerror(EBUSY)))
        throw MountCallError(code: isBusy ? EBUSY : EPERM, description: text.trimmed)
    }

    /// The end to read the helper's errors from; this process keeps nothing of the other end.
    private static func spawn(_ arguments: [BytePath]) throws(Errno) -> (Descriptor, ChildProcess) {
        let (reader, writer) = try ChildProcess.pipe()
        let null = try Descriptor.open("/dev/null", O_RDWR)
        var last = Errno(rawValue: ENOENT)
        for folder in ["/usr/bin", "/bin", "/usr/local/bin"] {
            do throws(Errno) {
                let child = try ChildProcess(
                    program: BytePath("\(folder)/fusermount3"), arguments: arguments,
                    descriptors: .init(input: null, output: null, errors: writer))
                return (reader, child)
            } catch {
                last = error
            }
        }
        throw last
    }
}

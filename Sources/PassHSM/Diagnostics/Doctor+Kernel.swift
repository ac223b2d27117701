import Glibc
import HSMControl
import HSMFanotify
import HSMSystem

/// Findings that come from the kernel.
extension Doctor {
    func kernelFinding() -> Finding {
        guard let kernel else { return Finding("kernel", .limited, "\(release): not a version that is understood") }
        let detail = "Linux \(release)"
        if kernel >= KernelVersion(6, 9) { return Finding("kernel", .ok, detail) }
        return Finding("kernel", .limited, "\(detail): FUSE passthrough comes with 6.9")
    }

    func fuseDevice() -> Finding {
        let name = "/dev/fuse"
        do throws(Errno) {
            _ = try Descriptor.open("/dev/fuse", O_RDWR)
        } catch {
            let advice = error.rawValue == ENOENT ? " (modprobe fuse?)" : ""
            return Finding(name, .missing, "\(error.text)\(advice)")
        }
        if capabilities.mayAdministrate { return Finding(name, .ok, "can be opened") }
        let helpers = ["/usr/bin/fusermount3", "/bin/fusermount3", "/usr/local/bin/fusermount3"]
        guard helpers.contains(where: { access($0, X_OK) == 0 }) else {
            return Finding(name, .missing, "can be opened, but without CAP_SYS_ADMIN fusermount3 is needed to mount")
        }
        return Finding(name, .ok, "can be opened; fusermount3 mounts")
    }

    func preContent(_ lower: BytePath?) -> Finding {
        let name = "fanotify pre-content"
        let support = PreContentSupport(lower: lower, mayAdministrate: capabilities.mayAdministrate)
        if let obstacle = support.obstacle { return Finding(name, .missing, obstacle) }
        if lower == nil { return Finding(name, .ok, "the kernel has it; the file system is tried with LOWER") }
        if let reservation = support.reservation { return Finding(name, .limited, reservation) }
        return Finding(name, .ok, "all of the file system can be marked; `mount --frontend auto` takes it")
    }

    func requestTimeout() -> Finding {
        func value(_ name: String) -> Int? { SmallFile.text("/proc/sys/fs/fuse/\(name)").flatMap { Int($0) } }
        return Self.requestTimeout(default: value("default_request_timeout"), maximum: value("max_request_timeout"))
    }

    func ring() -> Finding {
        let name = "FUSE over io_uring"
        return switch SmallFile.text("/sys/module/fuse/parameters/enable_uring") {
        case "Y": Finding(name, .ok, "enabled in the kernel; libfuse uses it from 3.18 on")
        case .some: Finding(name, .limited, "off: /sys/module/fuse/parameters/enable_uring is N; not needed")
        case nil: Finding(name, .missing, "needs Linux 6.14 or later; not needed")
        }
    }

    func privileges() -> [Finding] {
        let user = OwnProcess.user
        let limit = Capabilities.descriptorLimit()
        let descriptors = "\(limit.now) now, \(limit.max) at most"
        return [
            Finding("user", .ok, "\(user)"),
            capabilities.mayAdministrate
                ? Finding("CAP_SYS_ADMIN", .ok, "held")
                : Finding(
                    "CAP_SYS_ADMIN", .missing, "no passthrough, no attributes of the namespace trusted, no fanotify"),
            capabilities.mayOpenHandles
                ? Finding("CAP_DAC_READ_SEARCH", .ok, "held: inodes are known by handle")
                : Finding("CAP_DAC_READ_SEARCH", .missing, "each known inode needs a descriptor"),
            Finding(
                "RLIMIT_NOFILE", limit.max >= 4096 || capabilities.mayOpenHandles ? .ok : .limited, descriptors),
        ]
    }
}

<?php
// A WebDAV server made of Debian's sabre/dav: one folder, with basic login below /dav/ and digest login below /digest/.
// Below /remote.php/dav/ it has the addresses of a Nextcloud, and takes uploads in parts as Nextcloud's developer manual
// has it. That is our reading of the manual, made stricter where it could be, and no Nextcloud.
// The library is older than this PHP, whose notices would end up in its answers.
error_reporting(E_ERROR | E_PARSE);
ini_set('display_errors', '0');
set_time_limit(0);
require_once '/usr/share/php/Sabre/autoload.php';

use Sabre\DAV;

class OneUser extends DAV\Auth\Backend\AbstractBasic
{
    protected function validateUserPass($user, $password)
    {
        return $user === getenv('DAV_USER') && $password === getenv('DAV_PASSWORD');
    }
}

class ChunkedUpload extends DAV\ServerPlugin
{
    private $server;

    public function initialize(DAV\Server $server)
    {
        $this->server = $server;
        $server->subscribeEvent('beforeMethod', [$this, 'beforeMethod'], 5);
    }

    public function beforeMethod($method, $uri)
    {
        $names = explode('/', $uri);
        if ($names[0] !== 'uploads') {
            return true;
        }
        $changes = in_array($method, ['MKCOL', 'PUT', 'MOVE']);
        if ($changes && strpos($this->destination(), 'files/' . getenv('DAV_USER') . '/') !== 0) {
            throw new DAV\Exception\BadRequest('every step names a destination among the files');
        }
        // Parts are written, listed and put together, and never read, renamed or copied.
        if (in_array($method, ['GET', 'COPY']) || (count($names) > 3 && $method === 'MKCOL')) {
            throw new DAV\Exception\MethodNotAllowed('parts cannot be read');
        }
        $last = end($names);
        if ($method === 'PUT' && (count($names) !== 4 || !ctype_digit($last) || $last < 1 || $last > 10000)) {
            throw new DAV\Exception\BadRequest('the name of a part is a number from 1 to 10000');
        }
        if ($method !== 'MOVE') {
            return true;
        }
        if ($last !== '.file') {
            throw new DAV\Exception\BadRequest('only .file is moved');
        }
        $this->assemble(getenv('DAV_DATA') . '/' . dirname($uri), getenv('DAV_DATA') . '/' . $this->destination());
        return false;
    }

    private function destination()
    {
        return $this->server->calculateUri((string) $this->server->httpRequest->getHeader('Destination'));
    }

    private function assemble($parts, $target)
    {
        if (!is_dir($parts)) {
            throw new DAV\Exception\NotFound('there is no such upload');
        }
        $request = $this->server->httpRequest;
        if (file_exists($target) && $request->getHeader('Overwrite') === 'F') {
            throw new DAV\Exception\PreconditionFailed('the destination is taken');
        }
        $numbers = array_filter(scandir($parts), 'ctype_digit');
        sort($numbers, SORT_NUMERIC);
        $sizes = array_map(fn ($number) => filesize("$parts/$number"), $numbers);
        foreach (array_slice($sizes, 0, -1) as $size) {
            if ($size < 5 << 20) {
                throw new DAV\Exception\BadRequest('all parts but the last have 5 MiB at least');
            }
        }
        if ((string) array_sum($sizes) !== $request->getHeader('OC-Total-Length')) {
            throw new DAV\Exception\BadRequest('the parts have another length than was said');
        }
        $whole = fopen("$target.part", 'wb');
        foreach ($numbers as $number) {
            $part = fopen("$parts/$number", 'rb');
            stream_copy_to_stream($part, $whole);
            fclose($part);
            unlink("$parts/$number");
        }
        fclose($whole);
        $status = file_exists($target) ? 204 : 201;
        rename("$target.part", $target);
        array_map('unlink', glob("$parts/{,.}[!.]*", GLOB_BRACE));
        rmdir($parts);
        $this->server->httpResponse->sendStatus($status);
    }
}

$digest = strpos($_SERVER['REQUEST_URI'], '/digest/') === 0;
$logins = $digest ? new DAV\Auth\Backend\File(getenv('DAV_DIGESTS')) : new OneUser();
$nextcloud = strpos($_SERVER['REQUEST_URI'], '/remote.php/') === 0;
$server = new DAV\Server(new DAV\FSExt\Directory(getenv('DAV_DATA')));
$server->setBaseUri($nextcloud ? '/remote.php/dav/' : ($digest ? '/digest/' : '/dav/'));
$server->addPlugin(new DAV\Auth\Plugin($logins, 'offsite'));
$server->addPlugin(new DAV\Locks\Plugin(new DAV\Locks\Backend\File(getenv('DAV_LOCKS'))));
$server->addPlugin(new DAV\PartialUpdate\Plugin());
if ($nextcloud) {
    $server->addPlugin(new ChunkedUpload());
}
$server->exec();

<?php
// A WebDAV server made of Debian's sabre/dav: one folder, with basic login below /dav/ and digest login below /digest/.
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

$digest = strpos($_SERVER['REQUEST_URI'], '/digest/') === 0;
$logins = $digest ? new DAV\Auth\Backend\File(getenv('DAV_DIGESTS')) : new OneUser();
$server = new DAV\Server(new DAV\FSExt\Directory(getenv('DAV_DATA')));
$server->setBaseUri($digest ? '/digest/' : '/dav/');
$server->addPlugin(new DAV\Auth\Plugin($logins, 'offsite'));
$server->addPlugin(new DAV\Locks\Plugin(new DAV\Locks\Backend\File(getenv('DAV_LOCKS'))));
$server->addPlugin(new DAV\PartialUpdate\Plugin());
$server->exec();
